"""What callers of AUTOMATIC1111's API have chosen is remembered, and cannot grow without end."""

from studio.web.a1111.choices import MOST, Chosen, Visitors


def test_choices_are_kept_for_so_many_only() -> None:
    visitors = Visitors()
    for number in range(MOST + 1):
        visitors.remember(str(number), Chosen(clip_skip=2))
    visitors.remember("1000", Chosen(checkpoint="pocket-sd21"))
    assert visitors.chosen("0") == Chosen()  # there were more than are remembered
    assert visitors.chosen("1") == Chosen(clip_skip=2)
    assert visitors.chosen("1000") == Chosen(clip_skip=2, checkpoint="pocket-sd21")
