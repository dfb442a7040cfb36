"""Test prompts for what a pocket model was taught by its user: scenes with a shape that it never saw."""

from collections.abc import Iterator

import numpy as np

from engines.pocket.grammar import caption
from engines.pocket.sampling import choose
from engines.pocket.trials import Trial
from engines.pocket.world import BACKGROUNDS, COLOURS, NOVEL_SHAPES, PLACES, RELATIONS, SHAPES, Scene, Thing

KINDS = ("single", "place", "pair")
"""The novel shape by itself in any colour, at some place, and beside a shape that the model knows."""


def novel_trials(count: int, base_seed: int, shape: str = NOVEL_SHAPES[0]) -> Iterator[Trial]:
    """`count` prompts with `shape`, of each kind in turn."""
    for index in range(count):
        rng = np.random.default_rng([base_seed, 77, index])
        kind = KINDS[index % len(KINDS)]
        scene = novel_scene(rng, kind, shape)
        yield Trial(kind=kind, is_held_out=True, scene=scene, prompt=caption(scene), seed=int(rng.integers(2**32)))


def novel_scene(rng: np.random.Generator, kind: str, shape: str = NOVEL_SHAPES[0]) -> Scene:
    """A scene of `kind` with one of `shape` in it."""
    background = choose(tuple(BACKGROUNDS), rng)
    colours = [name for name in COLOURS if name != background]
    novel = Thing(colour=choose(colours, rng), shape=shape)
    if kind == "single":
        return Scene(background=background, things=(novel,))
    if kind == "place":
        placed = Thing(colour=novel.colour, shape=shape, place=choose(tuple(PLACES), rng))
        return Scene(background=background, things=(placed,))
    known = Thing(colour=choose(colours, rng), shape=choose(SHAPES, rng))
    things = (novel, known) if rng.random() < 0.5 else (known, novel)
    return Scene(background=background, things=things, relation=choose(tuple(RELATIONS), rng))
