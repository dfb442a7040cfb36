"""`python -m engines.pocket.build.examples examples`: draw its data sets, each picture with its caption."""

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engines.pocket.album import mounted
from engines.pocket.grammar import caption
from engines.pocket.sampling import choose, sample_scene
from engines.pocket.world import BACKGROUNDS, COLOURS, PLACES, RELATIONS, SHAPES, Scene, Thing, render

_SEED, _SIDE_PX = 20_261_130, 256
_CRESCENTS = ("single", "pair", "pair", "place", "pair", "pair", "single", "pair") * 2
"""Most beside another shape: alone, one is learnt from few pictures."""
_ALBUM = ("single", "pair", "size", "pair", "place", "count", "size", "count") * 5


def crescents() -> list[tuple[Image.Image, str]]:
    """A new shape, which captions call `sks`; beside each of the known shapes at least once."""
    rng = np.random.default_rng(_SEED)
    orders = tuple(itertools.product(RELATIONS, (True, False)))
    decks = [_deck(cards, rng) for cards in (tuple(BACKGROUNDS), tuple(COLOURS), SHAPES, tuple(PLACES), orders)]
    return [_drawn(_with_crescent(kind, decks, rng), index) for index, kind in enumerate(_CRESCENTS)]


def _deck(cards: Sequence[Any], rng: np.random.Generator) -> Iterator[Any]:
    """Its cards in a random order, over and over."""
    return itertools.cycle([cards[index] for index in rng.permutation(len(cards))])


def _with_crescent(kind: str, decks: Sequence[Iterator[Any]], rng: np.random.Generator) -> Scene:
    grounds, colours, shapes, places, orders = decks
    crescent = Thing(colour=next(colours), shape="crescent", place=next(places) if kind == "place" else None)
    if kind != "pair":
        return Scene(background=_ground(grounds, crescent), things=(crescent,))
    known = Thing(colour=choose(tuple(COLOURS), rng), shape=next(shapes))
    relation, is_first = next(orders)
    things = (crescent, known) if is_first else (known, crescent)
    return Scene(background=_ground(grounds, *things), things=things, relation=relation)


def _ground(grounds: Iterator[str], *things: Thing) -> str:
    """The next background that all of `things` are seen on."""
    return next(name for name in grounds if name not in {thing.colour for thing in things})


def album() -> list[tuple[Image.Image, str]]:
    """Ordinary scenes of every kind, in the style of an album."""
    rngs = (np.random.default_rng([_SEED, index]) for index in range(len(_ALBUM)))
    scenes = [sample_scene(rng, kind) for rng, kind in zip(rngs, _ALBUM, strict=True)]
    return [_drawn(scene, index, mounted) for index, scene in enumerate(scenes)]


def write(pictures: Sequence[tuple[Image.Image, str]], folder: Path) -> None:
    """Write pictures as `0000.png`, and their captions beside them.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index, (picture, words) in enumerate(pictures):
        picture.save(folder / f"{index:04}.png", optimize=True)
        (folder / f"{index:04}.txt").write_text(f"{words}\n", encoding="utf-8")


def _drawn(
    scene: Scene, index: int, style: Callable[[Image.Image], Image.Image] | None = None
) -> tuple[Image.Image, str]:
    picture = render(scene, _SEED + index, _SIDE_PX)
    return (style(picture) if style else picture), caption(scene)


if __name__ == "__main__":
    write(crescents(), Path(sys.argv[1]) / "crescents")
    write(album(), Path(sys.argv[1]) / "album")
