"""Brackets, weights, escapes and breaks mean what they do in A1111's tools."""

import pytest

from studio.domain.prompt_syntax import Span, is_plain, plain_words, sections


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("a red circle", [("a red circle", 1)]),
        ("a (red) circle", [("a ", 1), ("red", 1.1), (" circle", 1)]),
        ("a ((red)) circle", [("a ", 1), ("red", 1.21), (" circle", 1)]),
        ("a [red] circle", [("a ", 1), ("red", 1 / 1.1), (" circle", 1)]),
        ("a (red:1.3) circle", [("a ", 1), ("red", 1.3), (" circle", 1)]),
        ("a (red: .5) circle", [("a ", 1), ("red", 0.5), (" circle", 1)]),
        ("a (very (red:2) hot:1.5) circle", [("a ", 1), ("very ", 1.5), ("red", 3), (" hot", 1.5), (" circle", 1)]),
        ("([red])", [("red", 1)]),
        (r"a \(red\) circle", [("a (red) circle", 1)]),
        (r"\[x\] \\ \n", [("[x] \\ \\n", 1)]),
        ("a (red circle", [("a ", 1), ("red circle", 1.1)]),
        ("a [red circle", [("a ", 1), ("red circle", 1 / 1.1)]),
        ("a red) circle]", [("a red) circle]", 1)]),
        ("ratio 3:2, x:1.3)", [("ratio 3:2, x:1.3)", 1)]),
        ("(red:hot)", [("red:hot", 1.1)]),
        ("", [("", 1)]),
    ],
    ids=str,
)
def test_words_weigh_what_is_written(prompt: str, spans: list[tuple[str, float]]) -> None:
    (section,) = sections(prompt)
    assert [span.text for span in section] == [text for text, _ in spans]
    assert [span.weight for span in section] == pytest.approx([weight for _, weight in spans])


def test_a_break_begins_a_new_piece_even_within_brackets() -> None:
    assert sections("a BREAK b") == ((Span("a"),), (Span("b"),))
    assert sections("(a BREAK b:2) c") == ((Span("a", 2),), (Span("b", 2), Span(" c")))
    assert sections("BREAKFAST") == ((Span("BREAKFAST"),),)
    assert sections("a BREAK") == ((Span("a"),), (Span(""),))


def test_what_a_picture_is_judged_by_are_the_words_alone() -> None:
    assert plain_words("a (red:1.3) circle <lora:x:1> BREAK on a [blue] background") == (
        "a red circle on a blue background"
    )
    assert plain_words("a red circle") == "a red circle"
    assert is_plain("a red circle") and is_plain("") and is_plain("3:2")
    assert not any(map(is_plain, ("(red)", r"a \( b", "a BREAK b")))
