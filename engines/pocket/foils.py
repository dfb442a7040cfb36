"""Scenes that differ from another in one thing: what a judge of pictures must tell apart."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from engines.pocket.sampling import choose
from engines.pocket.world import BACKGROUNDS, COLOURS, SHAPES, Scene, Thing

FOIL_SKILLS = ("colour", "shape", "count", "relation", "binding", "place", "size", "background")
"""What a foil may differ in; `binding` is which of two things has which colour."""

_OPPOSITE = {
    "left of": "right of", "right of": "left of", "above": "below", "below": "above",
    "left": "right", "right": "left", "top": "bottom", "bottom": "top",
    "small": "large", "large": "small",
}  # fmt: skip


def foils(scene: Scene, rng: np.random.Generator) -> Mapping[str, Scene]:
    """For each skill that `scene` asks for, a scene that differs from it in that alone."""
    found = {
        "colour": _recoloured(scene, rng),
        "shape": _reshaped(scene, rng),
        "count": _recounted(scene),
        "relation": replace(scene, relation=_OPPOSITE[scene.relation]) if scene.relation else None,
        "binding": _rebound(scene),
        "place": _altered(scene, "place"),
        "size": _altered(scene, "size"),
        "background": _regrounded(scene, rng),
    }
    return {skill: foil for skill, foil in found.items() if foil is not None}


def _recoloured(scene: Scene, rng: np.random.Generator) -> Scene | None:
    index = int(rng.integers(len(scene.things)))
    thing = scene.things[index]
    names = [name for name in COLOURS if name not in (thing.colour, scene.background)]
    return _with(scene, index, replace(thing, colour=choose(names, rng)))


def _reshaped(scene: Scene, rng: np.random.Generator) -> Scene | None:
    index = int(rng.integers(len(scene.things)))
    thing = scene.things[index]
    names = [name for name in SHAPES if name != thing.shape]
    return _with(scene, index, replace(thing, shape=choose(names, rng)))


def _with(scene: Scene, index: int, thing: Thing) -> Scene | None:
    things = tuple(thing if place == index else other for place, other in enumerate(scene.things))
    return None if len(set(things)) < len(things) else replace(scene, things=things)


def _recounted(scene: Scene) -> Scene | None:
    """One more, or, where that would be four, one less."""
    if scene.kind not in ("count", "single"):
        return None
    thing = scene.things[0]
    return _with(scene, 0, replace(thing, count={1: 2, 2: 3, 3: 2}[thing.count]))


def _rebound(scene: Scene) -> Scene | None:
    if len(scene.things) < 2:
        return None
    first, second = scene.things
    if first.colour == second.colour or first.shape == second.shape:
        return None
    things = replace(first, colour=second.colour), replace(second, colour=first.colour)
    return replace(scene, things=things)


def _altered(scene: Scene, field: str) -> Scene | None:
    thing = scene.things[0]
    now = getattr(thing, field)
    return replace(scene, things=(replace(thing, **{field: _OPPOSITE[now]}),)) if now in _OPPOSITE else None


def _regrounded(scene: Scene, rng: np.random.Generator) -> Scene | None:
    taken = {scene.background, *(thing.colour for thing in scene.things)}
    names = [name for name in BACKGROUNDS if name not in taken]
    return replace(scene, background=choose(names, rng))
