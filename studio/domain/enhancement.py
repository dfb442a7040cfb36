"""A prompt made better: what is suggested and why, what is kept out of it meanwhile, and how it differs."""

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from studio.domain.choices import outermost, settled
from studio.domain.prompt_syntax import plain_words, sections
from studio.domain.request import Frozen
from studio.domain.tags import TAG, without_tags

Source = Literal["groq", "rules"]
"""A language model, or the studio's own rules."""

_BREAK = re.compile(r"\s*\bBREAK\b")
_SIGNS = re.compile(r"[\\()\[\]]")
_OPEN, _WEIGHED = 0xE000, 0xE800
"""Where the marks for what is left open and for what weighs something begin: characters for private use."""
_MARK = re.compile("[\ue000-\uefff]")
_WORD = re.compile(r"\s+|<[^<>]*>|[\w'’-]+|[^\w\s]")


class Suggestion(Frozen):
    """A prompt, and why it is better than what was typed, in a sentence or two."""

    prompt: str
    why: str


class Enhancement(Frozen):
    """Suggestions for `original`. `note` says why it is not a language model that made them, the first time that
    somebody is told; "" else. `model` is the id of the language model."""

    original: str
    suggestions: tuple[Suggestion, ...]
    source: Source
    model: str = ""
    note: str = ""


@dataclass(frozen=True)
class Piece:
    """A part of a text that is compared with another."""

    text: str
    kind: Literal["same", "added", "removed"]


@dataclass(frozen=True, kw_only=True)
class TakenApart:
    """A prompt without what an enhancement must not touch. `words` are what is enhanced; `put_back` gives the rest
    back its place."""

    words: str
    _marks: dict[str, tuple[str, str]]
    """What stands for each thing kept out → how it is shown among the words, how it was typed."""
    _order: tuple[str, ...]
    _tags: tuple[str, ...]
    _rest: str

    def put_back(self, words: str) -> str:
        """`words`, which are plain, as a prompt: each thing that was kept out where its words stand in it, or at its
        end; tags behind it, and what stood behind a BREAK."""
        text = _escaped(_MARK.sub("", words)).strip(" ,")
        for mark in self._order:
            shown = _escaped(self._marks[mark][0]).strip(" ,")
            pattern = re.compile(rf"(?<!\w){re.escape(shown)}(?!\w)", re.IGNORECASE)
            text, found = pattern.subn(lambda _, mark=mark: mark, text, count=1) if shown else (text, 0)
            if not found:
                text = f"{text}, {mark}"
        while _MARK.search(text):
            text = _MARK.sub(lambda found: self._marks[found[0]][1], text)
        return " ".join(filter(None, [text, *self._tags])) + self._rest


def taken_apart(prompt: str) -> TakenApart:
    """Keep tags, weights, choices and what stands behind a BREAK out of `prompt`."""
    prompt = _MARK.sub("", prompt)
    broken = _BREAK.search(prompt)
    first = prompt[: broken.start()] if broken else prompt
    rest = prompt[broken.start() :] if broken else ""
    marks: dict[str, tuple[str, str]] = {}
    text = without_tags(first)
    for number, (start, end) in reversed(list(enumerate(outermost(text)))):
        mark = chr(_OPEN + number)
        marks[mark] = (plain_words(settled(text[start:end])), text[start:end])
        text = text[:start] + mark + text[end:]
    words: list[str] = []
    for number, span in enumerate(sections(text)[0]):
        bare = span.text.strip(" ,")
        if span.weight == 1 or not bare:
            words.append(span.text)
            continue
        mark = chr(_WEIGHED + number)
        marks[mark] = (_shown(bare, marks), f"({_escaped(bare)}:{span.weight:.3g})")
        words.append(span.text.replace(bare, mark))
    marked = "".join(words)
    return TakenApart(
        words=" ".join(_shown(marked, marks).split()),
        _marks=marks,
        _order=tuple(_MARK.findall(marked)),
        _tags=tuple(found[0] for found in TAG.finditer(first)),
        _rest=rest,
    )


def difference(before: str, after: str) -> tuple[Piece, ...]:
    """What is added to and removed from `before`, word by word, to give `after`; spaces go with what they stand by."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    pieces: list[Piece] = []
    for kind, *places in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        first, last, start, end = places
        removed, added = "".join(old[first:last]), "".join(new[start:end])
        if kind == "equal":
            pieces.append(Piece(added, "same"))
            continue
        if removed:
            pieces.append(Piece(removed, "removed"))
        if added:
            pieces.append(Piece(added, "added"))
    return tuple(pieces)


def _shown(text: str, marks: dict[str, tuple[str, str]]) -> str:
    return _MARK.sub(lambda found: marks[found[0]][0], text)


def _escaped(text: str) -> str:
    """`text` with its brackets as plain signs."""
    return _SIGNS.sub(lambda found: f"\\{found[0]}", text)
