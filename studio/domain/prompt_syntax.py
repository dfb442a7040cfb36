r"""How a prompt says which of its words matter more, as people of A1111-family tools write it.

`(words)` count 1.1 times as much, `[words]` 1.1 times less, `(words:1.3)` 1.3 times; they may stand in each other, and
what is left open goes to the end. `\(`, `\)`, `\[`, `\]` and `\\` are those signs themselves. `BREAK` begins a new
piece, which the model reads by itself.
"""

import re
from dataclasses import dataclass, replace

from studio.domain.tags import without_tags

EMPHASIS = 1.1
"""What one pair of brackets changes."""
# What is possessive (*+, ++) gives nothing back: a long line of digits or spaces would cost quadratic time otherwise.
_SIGNS = re.compile(r"\\[()\[\]\\]|[()\[\]]|:\s*+(?P<weight>[+-]?(?:\d++\.?\d*+|\.\d++))\s*+\)|[^\\()\[\]:]++|[\\:]")
_DEEPEST = 50
"""Parentheses, and brackets, that may be open at once; more are text. Each costs a product for every span."""
_MOST = 100.0
"""Of a weight, either way: (x:9999…) would be infinite, and a picture of it no picture."""
_BREAK = re.compile(r"(?:(?<!\s)\s++)?\bBREAK\b\s*+")


@dataclass(frozen=True)
class Span:
    """Words that count `weight` times as much as others."""

    text: str
    weight: float = 1.0


Section = tuple[Span, ...]
"""What is read in one go, as far as it fits."""


def sections(prompt: str) -> tuple[Section, ...]:
    """The pieces of a prompt, one at least; neighbours of one weight are one span, and a piece has one at least."""
    pieces: list[list[Span]] = [[]]
    for span in _spans(prompt):
        first, *rest = _BREAK.split(span.text)
        _add(pieces[-1], replace(span, text=first))
        for text in rest:
            pieces.append([])
            _add(pieces[-1], replace(span, text=text))
    return tuple(tuple(piece) or (Span(""),) for piece in pieces)


def plain_words(prompt: str) -> str:
    """What a prompt says, without tags, weights and breaks: what a picture is judged by."""
    said = " ".join("".join(span.text for span in section).strip() for section in sections(without_tags(prompt)))
    return " ".join(said.split()) if said != prompt else prompt


def is_plain(prompt: str) -> bool:
    """Whether nothing in a prompt is syntax."""
    return sections(prompt) == ((Span(prompt),),)


def _spans(prompt: str) -> list[Span]:
    texts: list[str] = []
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def weigh(first: int, factor: float) -> None:
        weights[first:] = [weight * factor for weight in weights[first:]]

    for match in _SIGNS.finditer(prompt):
        sign = match[0]
        if sign in opened and len(opened[sign]) < _DEEPEST:
            opened[sign].append(len(texts))
        elif match["weight"] is not None and opened["("]:
            weigh(opened["("].pop(), float(match["weight"]))
        elif sign == ")" and opened["("]:
            weigh(opened["("].pop(), EMPHASIS)
        elif sign == "]" and opened["["]:
            weigh(opened["["].pop(), 1 / EMPHASIS)
        else:
            texts.append(sign[1:] if len(sign) == 2 and sign[0] == "\\" else sign)
            weights.append(1.0)
    for kind, factor in (("(", EMPHASIS), ("[", 1 / EMPHASIS)):
        for first in opened[kind]:
            weigh(first, factor)
    return [Span(text, max(-_MOST, min(_MOST, weight))) for text, weight in zip(texts, weights, strict=True)]


def _add(piece: list[Span], span: Span) -> None:
    if not span.text:
        return
    if piece and piece[-1].weight == span.weight:
        piece[-1] = replace(span, text=piece[-1].text + span.text)
    else:
        piece.append(span)
