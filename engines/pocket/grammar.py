"""Words for scenes: a canonical caption, paraphrases of it, and the way back from words to a `Scene`."""

import re

import numpy as np

from engines.pocket.world import ALL_SHAPES, BACKGROUNDS, COLOURS, NOVEL_SHAPES, PLACES, SHAPES, Scene, Thing

NUMBERS: dict[int, tuple[str, ...]] = {2: ("two", "2", "a pair of"), 3: ("three", "3", "a group of three")}
PLURALS = {shape: "crosses" if shape == "cross" else f"{shape}s" for shape in SHAPES}
NOVEL_NOUNS = dict(zip(("sks",), NOVEL_SHAPES, strict=True))
"""What shapes are called that models never saw, one or many: words that they do not know either."""

RELATION_WORDS: dict[str, tuple[str, ...]] = {
    "left of": ("left of", "to the left of", "on the left of", "on the left side of"),
    "right of": ("right of", "to the right of", "on the right of", "on the right side of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
}
_PLACE_WORDS = {
    "left": ("on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right side", "at the right"),
    "top": ("at the top", "on the top", "near the top"),
    "bottom": ("at the bottom", "on the bottom", "near the bottom"),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium",),
    "large": ("large", "big", "huge"),
}
_OPENINGS = ("a picture of", "an image of", "a drawing of")
_ARTICLES = ("a", "one", "the", "")


def caption(scene: Scene) -> str:
    """Say `scene` in its canonical form, such as `a large red circle on a white background`."""
    body = _body(scene, None)
    return f"{body} on {_article(scene.background)} {scene.background} background"


def paraphrase(scene: Scene, rng: np.random.Generator) -> str:
    """Say `scene` in one of many ways; every sentence still determines all that the scene fixes, save that
    one in twelve leaves the background open."""
    if rng.random() < 0.35:
        return caption(scene)
    body = _body(scene, rng)
    if rng.random() < 0.1:
        body = f"{_pick(_OPENINGS, rng)} {body}"
    return _with_background(body, scene.background, rng)


def says_background(text: str, scene: Scene) -> bool:
    """Whether a caption of `scene` names its background."""
    return scene.background in text.replace("grey", "gray")


def vocabulary() -> frozenset[str]:
    """Every word that a caption can hold, lower case."""
    phrases = [*COLOURS, *BACKGROUNDS, *SHAPES, *PLURALS.values(), *_OPENINGS, *_ARTICLES, "an", "and", "is", "grey"]
    for table in (RELATION_WORDS, _PLACE_WORDS, SIZE_WORDS, NUMBERS):
        phrases += [phrase for group in table.values() for phrase in group]
    phrases += [
        "on a background",
        "against the",
        "with",
        "in",
        "that",
        "are",
        "background",
    ]
    return frozenset(word for phrase in phrases for word in phrase.split())


RESERVED = frozenset({"colored", "next", "beside"})
"""Words that tokenizers have a token for, and that no caption holds yet."""


def backgrounds_named(prompt: str) -> frozenset[str]:
    """The backgrounds that `prompt` asks for, however it puts that."""
    names = "|".join((*BACKGROUNDS, "grey"))
    bare = rf"\b(?:on|against|with) (?:an? |the )?({names})(?=\s*(?:[,.]|$))"  # not "on the white ring"
    found = re.findall(rf"\b({names}) background\b|{bare}", prompt.lower())
    return frozenset("".join(pair).replace("grey", "gray") for pair in found)


def unknown_words(prompt: str) -> tuple[str, ...]:
    """Words of `prompt` that no caption ever holds, in order, each once."""
    words = re.findall(r"[^\W_]+", prompt.lower())
    return tuple(dict.fromkeys(word for word in words if word not in vocabulary()))


def parse(text: str) -> Scene | None:
    """Read a caption in its canonical form or a near relative back into a `Scene`; None where it can't be."""
    words = " ".join(re.findall(r"[^\W_]+", text.lower().replace("grey", "gray")))
    background, words = _take_background(words)
    if background is None:
        return None
    for relation, phrases in RELATION_WORDS.items():
        for phrase in sorted(phrases, key=len, reverse=True):
            first, found, second = f" {words} ".partition(f" {phrase} ")
            things = (_parse_thing(first), _parse_thing(second)) if found else (None, None)
            if things[0] and things[1]:
                return _scene(background, (things[0], things[1]), relation)
    first, found, second = words.partition(" and ")
    if found and (one := _parse_thing(first)) and (two := _parse_thing(second)):
        return _scene(background, (one, two), None)
    thing = _parse_thing(words)
    return _scene(background, (thing,), None) if thing else None


def _scene(background: str, things: tuple[Thing, ...], relation: str | None) -> Scene | None:
    try:
        return Scene(background=background, things=things, relation=relation)
    except ValueError:  # words that the world does not draw together
        return None


def _body(scene: Scene, rng: np.random.Generator | None) -> str:
    phrases = [_phrase(thing, rng) for thing in scene.things]
    if len(phrases) == 1:
        return phrases[0]
    if scene.relation is None:
        return " and ".join(phrases)
    relation = _pick(RELATION_WORDS[scene.relation], rng)
    if rng is not None and relation.startswith(("to the", "on the")) and rng.random() < 0.15:
        return f"{relation} {phrases[1]} is {phrases[0]}"
    return f"{phrases[0]} {relation} {phrases[1]}"


def _phrase(thing: Thing, rng: np.random.Generator | None) -> str:
    size = "" if thing.size == "medium" else _pick(SIZE_WORDS[thing.size], rng) + " "
    noun = _noun(thing)
    turn = 1.0 if rng is None else rng.random()
    if turn < 0.08:
        words = f"{size}{noun} in {thing.colour}"
    elif turn < 0.16:
        words = f"{size}{noun} that {'is' if thing.count == 1 else 'are'} {thing.colour}"
    else:
        words = f"{size}{thing.colour} {noun}"
    if thing.count > 1:
        words = f"{_pick(NUMBERS[thing.count], rng)} {words}"
    else:
        article = "a" if rng is None or rng.random() < 0.6 else _pick(_ARTICLES, rng)
        words = f"{_article(words) if article == 'a' else article} {words}".strip()
    return words if thing.place is None else f"{words} {_pick(_PLACE_WORDS[thing.place], rng)}"


def _noun(thing: Thing) -> str:
    novel = {shape: noun for noun, shape in NOVEL_NOUNS.items()}
    if thing.shape in novel:
        return novel[thing.shape]
    return thing.shape if thing.count == 1 else PLURALS[thing.shape]


def _with_background(body: str, background: str, rng: np.random.Generator) -> str:
    if background == "gray" and rng.random() < 0.3:
        background = "grey"
    article = _article(background)
    turn = rng.random()
    if turn < 0.13:
        return body
    forms = (
        f"{body} on {background}",
        f"{body}, {background} background",
        f"{body} against {article} {background} background",
        f"{body} with {article} {background} background",
        f"on {article} {background} background, {body}",
        f"{body} on the {background} background",
        f"{body} on {article} {background} background",
    )
    return _pick(forms, rng)


def _article(phrase: str) -> str:
    return "an" if phrase[:1] in "aeiou" else "a"


def _pick(options: tuple[str, ...], rng: np.random.Generator | None) -> str:
    return options[0] if rng is None else options[int(rng.integers(len(options)))]


def _take_background(words: str) -> tuple[str | None, str]:
    names = "|".join(BACKGROUNDS)
    match = re.search(rf"\b(?:on|against|with)?\s*(?:a|the)?\s*\b({names}) background\b", words)
    match = match or re.search(rf"\bon ({names})$", words)
    if match is None:
        return None, words
    return match[1], f"{words[: match.start()]} {words[match.end() :]}".strip()


def _parse_thing(words: str) -> Thing | None:
    tokens = words.split()
    singular = {plural: shape for shape, plural in PLURALS.items()}
    known = [*ALL_SHAPES, *singular, *NOVEL_NOUNS]
    shapes = [token for token in tokens if token in known]
    colours = [token for token in tokens if token in COLOURS]
    if len(shapes) != 1 or len(colours) != 1:
        return None
    text = " ".join(tokens)
    count = next((n for n, names in NUMBERS.items() if any(_holds(text, name) for name in names)), 1)
    size = next((s for s, names in SIZE_WORDS.items() if any(_holds(text, name) for name in names)), "medium")
    place = next((p for p in PLACES if p in tokens), None)
    shape = {**singular, **NOVEL_NOUNS}.get(shapes[0], shapes[0])
    if count == 1 and shapes[0] in singular:
        return None
    return Thing(colour=colours[0], shape=shape, size=size, place=place, count=count)


def _holds(text: str, phrase: str) -> bool:
    return re.search(rf"\b{re.escape(phrase)}\b", text) is not None
