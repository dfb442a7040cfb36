from collections import Counter

import pytest

from studio.domain.choices import chosen, every_word, leaves_open, refuse_open, settled
from studio.domain.errors import InvalidRequest

LISTS = {"colour": ("red", "blue"), "thing": ("a {small|large} __colour__ ball",), "loop": ("__loop__ x",)}


def made(prompt: str, seed: int = 1) -> str:
    return chosen(prompt, seed, lambda name: LISTS[name])


def test_what_leaves_nothing_open_stays_to_the_letter() -> None:
    for prompt in ("a {red} ball", r"a \{red|blue} ball", "snake_case __", "a  b", "|", "__ __", "{", "(a:1.2) [b]"):
        assert not leaves_open(prompt)
        assert made(prompt) == prompt


def test_the_seed_decides_and_every_choice_comes_up_about_as_often() -> None:
    counts = Counter(made("a {red|green|blue} ball", seed) for seed in range(600))
    assert set(counts) == {"a red ball", "a green ball", "a blue ball"}
    assert min(counts.values()) > 150
    assert made("{a|b|c|d} {a|b|c|d}", 5) == made("{a|b|c|d} {a|b|c|d}", 5)


def test_numbers_say_how_often() -> None:
    counts = Counter(made("{3::often|seldom|0::never}", seed) for seed in range(400))
    assert "never" not in counts
    assert 240 < counts["often"] < 360
    assert made("{0::a|0::b}") in ("a", "b")


def test_they_stand_in_each_other_and_in_lists() -> None:
    assert {made("{a|{b|c}}", seed) for seed in range(60)} == {"a", "b", "c"}
    said = {made("__thing__", seed) for seed in range(60)}
    assert said == {f"a {size} {colour} ball" for size in ("small", "large") for colour in ("red", "blue")}


def test_a_choice_may_be_nothing_or_a_tag() -> None:
    assert {made("a {|<lora:x:0.8>} cat", seed) for seed in range(20)} == {"a  cat", "a <lora:x:0.8> cat"}


def test_choices_without_an_end_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="do not come to an end"):
        made("__loop__")


def test_the_same_on_every_machine() -> None:
    """Python promises the same `random.random` for the same seed; this would notice if the rest changed."""
    assert [made("{a|b|c|d|e|f|g|h}", seed) for seed in range(8)] == ["f", "g", "a", "h", "g", "c", "c", "h"]


def test_what_it_is_about() -> None:
    assert settled("a {2::small|large} __animals/wild_bird__ by {day|night}") == "a small wild bird by day"
    assert every_word("a {2::red|{blue|green}} __shape__").split() == ["a", "red", "blue", "green"]


def test_where_words_must_stand() -> None:
    refuse_open("a red circle")
    with pytest.raises(InvalidRequest, match="leaves something open"):
        refuse_open("a __colour__ circle")
