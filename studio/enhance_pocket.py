"""Prompts for the pocket models made better by rule: in the words that they know, naming what was left open."""

import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from engines.pocket.grammar import NUMBERS, PLURALS, RELATION_WORDS, SIZE_WORDS, caption
from engines.pocket.world import BACKGROUNDS, COLOURS, PLACES, SHAPES, Scene, Thing
from studio.domain.enhancement import Suggestion
from studio.domain.wording import listed
from studio.prompt_words import prompt_words

_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_GROUND = re.compile(
    r"\b(?:(?:on|against|with|in front of)\s+)?(?:(?:an?|the|plain)\s+)*([\w-]+)\s+(?:background|backdrop)\b"
)
_SMALL_TALK = frozenset((
    "a", "an", "the", "of", "on", "in", "at", "with", "and", "is", "are", "that", "one", "some", "it", "its",
    "very", "by", "to", "against", "side", "background", "backdrop", "picture", "image", "drawing", "photo",
    "photograph", "painting",
))  # fmt: skip
"""Words whose loss nobody need be told of."""
_MOST_QUOTED = 5
_CONTRAST = 140.0
"""Distance in RGB, of 0 to 255 each, by which a thing is plain to see before its background."""


@dataclass
class _Part:
    """A thing as far as it was named."""

    colour: str | None = None
    shape: str | None = None
    size: str | None = None
    place: str | None = None
    count: int = 1

    @property
    def is_named(self) -> bool:
        return self.colour is not None or self.shape is not None


@dataclass
class _Heard:
    """What was understood of a prompt, and what was not."""

    parts: list[_Part]
    relation: str | None
    background: str | None
    meant: dict[str, str]
    lost: list[str]


def suggest_scenes(words: str, seed: int, count: int) -> tuple[Suggestion, ...]:
    """Up to `count` prompts near `words`, each with its reason: the first says no more than it must."""
    heard = _heard(words)
    rng = random.Random(f"scenes {seed} {words}")
    found: dict[str, Suggestion] = {}
    for scene, added in _scenes(heard, rng):
        prompt = caption(scene)
        if prompt.casefold() != words.casefold() and prompt not in found:
            found[prompt] = Suggestion(prompt=prompt, why=_why(heard, added))
        if len(found) == count:
            break
    return tuple(found.values())


def _heard(words: str) -> _Heard:
    text = words.lower().replace("grey", "gray")
    heard = _Heard(parts=[], relation=None, background=None, meant={}, lost=[])
    text = _take_background(text, heard)
    before, relation, after = _parted(text, heard)
    heard.relation = relation
    halves = [before, after] if relation else re.split(r"\band\b", text, maxsplit=1)
    parts = [part for half in halves if (part := _part(half, heard)).is_named]
    heard.parts = parts[:2]
    if len(parts) < 2:
        heard.relation = None
    return heard


def _take_background(text: str, heard: _Heard) -> str:
    known = _told("backgrounds")
    for found in _GROUND.finditer(text):
        name = found[1] if found[1] in BACKGROUNDS else known.get(found[1])
        if name:
            if name != found[1]:
                heard.meant[f"{found[1]} background"] = f"{name} background"
            heard.background = name
            return f"{text[: found.start()]} {text[found.end() :]}"
    found = re.search(r"\bon (\w+)\s*$", text)
    if found and found[1] in BACKGROUNDS:
        heard.background = found[1]
        return text[: found.start()]
    return text


def _parted(text: str, heard: _Heard) -> tuple[str, str | None, str]:
    said = {phrase: relation for relation, phrases in RELATION_WORDS.items() for phrase in phrases}
    loose = {
        phrase: relation for relation, phrases in prompt_words()["pocket"]["relations"].items() for phrase in phrases
    }
    for phrase in sorted({**said, **loose}, key=len, reverse=True):
        found = re.search(rf"\b{re.escape(phrase)}\b", text)
        if found and _has_thing(text[: found.start()]) and _has_thing(text[found.end() :]):
            if phrase in loose:
                heard.meant[phrase] = loose[phrase]
            return text[: found.start()], {**said, **loose}[phrase], text[found.end() :]
    return text, None, ""


def _has_thing(text: str) -> bool:
    return _part(text, _Heard(parts=[], relation=None, background=None, meant={}, lost=[])).is_named


def _part(text: str, heard: _Heard) -> _Part:
    part = _Part()
    shapes = {**{shape: shape for shape in SHAPES}, **_told("shapes")}
    many = {**{plural: shape for shape, plural in PLURALS.items()}, **_told("plurals")}
    colours = {**{colour: colour for colour in COLOURS}, **_told("colours")}
    sizes = {word: size for size, group in SIZE_WORDS.items() for word in group}
    counts = {word: number for number, group in NUMBERS.items() for word in group if " " not in word}
    for word in _WORD.findall(text):
        if word in colours and part.colour is None:
            part.colour = _meant(word, colours, heard)
        elif word in shapes and part.shape is None:
            part.shape = _meant(word, shapes, heard)
        elif word in many and part.shape is None:
            part.shape = many[word]
            part.count = max(part.count, 2)
            if PLURALS[part.shape] != word:
                heard.meant[word] = PLURALS[part.shape]
        elif word in sizes:
            part.size = sizes[word]
        elif word in PLACES:
            part.place = word
        elif word in counts:
            part.count = counts[word]
        elif word not in _SMALL_TALK and word not in ("pair", "group", "medium"):
            heard.lost.append(word)
    if re.search(r"\ba pair of\b", text):
        part.count = 2
    elif re.search(r"\ba group of\b", text):
        part.count = 3
    return part


def _meant(word: str, table: Mapping[str, str], heard: _Heard) -> str:
    if table[word] != word:
        heard.meant[word] = table[word]
    return table[word]


def _scenes(heard: _Heard, rng: random.Random) -> Iterator[tuple[Scene, list[str]]]:
    """Scenes that keep to what was heard, the plainest first, with what each adds to it."""
    for turn in range(40):
        added: list[str] = []
        parts = heard.parts or [_Part()]
        things = tuple(_thing(part, rng, added, is_alone=len(parts) == 1, turn=turn) for part in parts)
        relation = heard.relation
        if len(things) == 2 and relation is None and turn:
            relation = rng.choice(sorted(RELATION_WORDS))
            added.append("how they lie to each other")
        background = heard.background
        if background is None:
            background = rng.choice([name for name in BACKGROUNDS if _stand_out(things, name)] or list(BACKGROUNDS))
            added.append("the background")
        try:
            yield Scene(background=background, things=things, relation=relation), added
        except ValueError:  # what the world does not draw together, such as two things of which one is large
            continue


def _thing(part: _Part, rng: random.Random, added: list[str], *, is_alone: bool, turn: int) -> Thing:
    colour = part.colour or rng.choice([name for name in COLOURS if name not in ("black", "white")])
    shape = part.shape or rng.choice(SHAPES)
    added += [] if part.colour else ["the colour"]
    added += [] if part.shape else ["the shape"]
    if not is_alone or part.count > 1:
        return Thing(colour=colour, shape=shape, count=part.count if is_alone else 1)
    size, place = part.size or "medium", part.place
    if not part.size and turn % 3 == 1:
        size = rng.choice(("large", "large", "small"))
        added.append("the size")
    if not place and turn % 3 == 2:
        place = rng.choice(sorted(PLACES))
        added.append("the place")
    return Thing(colour=colour, shape=shape, size=size, place=place)


def _stand_out(things: Sequence[Thing], background: str) -> bool:
    ground = BACKGROUNDS[background]
    return all(math.dist(COLOURS[thing.colour], ground) > _CONTRAST for thing in things)


def _why(heard: _Heard, added: Sequence[str]) -> str:
    said: list[str] = []
    if not heard.parts and not heard.lost:
        said.append("Something that this model can draw.")
    elif not heard.parts:
        said.append("None of these words is one that the model knows; this is something that it can draw.")
    elif heard.meant:
        pairs = ", ".join(f"{meant} for “{word}”" for word, meant in list(heard.meant.items())[:_MOST_QUOTED])
        said.append(f"In words that the model knows: {pairs}.")
    if added and heard.parts:
        named = dict.fromkeys(added)
        said.append(f"Names {listed(list(named))}, which the prompt left to chance.")
    if heard.lost and heard.parts:
        lost = ", ".join(f"“{word}”" for word in dict.fromkeys(heard.lost[:_MOST_QUOTED]))
        said.append(f"Leaves out {lost}, which it never learnt.")
    return " ".join(said) or "The same in the form that the model was taught with."


@cache
def _told(kind: str) -> Mapping[str, str]:
    table: dict[str, Any] = prompt_words()["pocket"][kind]
    return {word: meant for meant, words in table.items() for word in words}
