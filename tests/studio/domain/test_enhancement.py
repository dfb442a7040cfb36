import pytest

from studio.domain.choices import outermost
from studio.domain.enhancement import difference, taken_apart


@pytest.mark.parametrize(
    ("prompt", "words", "better", "back"),
    [
        ("a cat", "a cat", "a cat, soft light", "a cat, soft light"),
        ("a cat <lora:ink:0.8>", "a cat", "a big cat", "a big cat <lora:ink:0.8>"),
        ("a (red:1.4) cat", "a red cat", "a large red cat", "a large (red:1.4) cat"),
        ("a (red:1.4) cat", "a red cat", "a large cat", "a large cat, (red:1.4)"),
        ("a [red] ((cat))", "a red cat", "a Red cat asleep", "a (red:0.909) (cat:1.21) asleep"),
        ("a {red|blue} cat", "a red cat", "a red cat asleep", "a {red|blue} cat asleep"),
        ("a ({red|{blue|green}}:1.2) cat", "a red cat", "one red cat", "one ({red|{blue|green}}:1.2) cat"),
        ("a __colour__ cat", "a colour cat", "a lovely colour cat", "a lovely __colour__ cat"),
        (r"a cat \(tabby\)", "a cat (tabby)", "a cat (tabby), asleep", r"a cat \(tabby\), asleep"),
        ("a cat BREAK (a dog:1.2) <lora:x>", "a cat", "a cat asleep", "a cat asleep BREAK (a dog:1.2) <lora:x>"),
        ("<lora:x:1>", "", "a fox", "a fox <lora:x:1>"),
        ("a cat", "a cat", "a cat (masterpiece:1.5)", r"a cat \(masterpiece:1.5\)"),
    ],
)
def test_what_is_kept_out_comes_back_to_its_words(prompt: str, words: str, better: str, back: str) -> None:
    apart = taken_apart(prompt)
    assert apart.words == words
    assert apart.put_back(better) == back


def test_the_same_words_twice_and_signs_that_nobody_types() -> None:
    apart = taken_apart("(red:1.2) and {red|blue} \ue000")
    assert apart.words == "red and red"
    assert apart.put_back("red and red and \ue801 red") == "(red:1.2) and {red|blue} and  red"


def test_outermost() -> None:
    text = "a {b|{c|d}} __e__ {f|__g__} {h}"
    assert [text[start:end] for start, end in outermost(text)] == ["{b|{c|d}}", "__e__", "{f|__g__}"]


def test_the_difference_is_told_word_by_word() -> None:
    pieces = difference("a red ball", "a large red circle")
    assert "".join(piece.text for piece in pieces if piece.kind != "added") == "a red ball"
    assert "".join(piece.text for piece in pieces if piece.kind != "removed") == "a large red circle"
    assert [piece.text for piece in pieces if piece.kind == "removed"] == ["ball"]
    assert difference("same", "same")[0].kind == "same"
    assert [piece.kind for piece in difference("", "a fox")] == ["added"]
