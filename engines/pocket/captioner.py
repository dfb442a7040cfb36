"""Captions for pictures of the pocket world, from what the checker sees: exact, or none."""

from collections import Counter

from PIL import Image

from engines.pocket.checker import SeenObject, Sighting, compare, see
from engines.pocket.grammar import caption
from engines.pocket.world import PLACES, RELATIONS, Scene, Thing

_MAX_OBJECTS = 3
_PLACE_OFFSET = 0.175
"""From the middle to where a thing stands at a side, in fractions of the picture: a lone thing strays by 0.08 and a
large one's centroid lies off its middle; one with a place stands at 0.2 or more."""


def describe(image: Image.Image) -> str | None:
    """The canonical caption of the one scene that `image` shows; None where it shows none that the world draws, or
    where anything in it is not clear."""
    sighting = see(image)
    scene = scene_of(sighting)
    return caption(scene) if scene is not None and compare(sighting, scene).correct else None


def scene_of(sighting: Sighting) -> Scene | None:
    """The scene that somebody sees; None where it is none of the world's."""
    seen = sighting.objects
    if sighting.background is None or not 1 <= len(seen) <= _MAX_OBJECTS:
        return None
    kinds = Counter((each.colour, each.shape) for each in seen)
    if any(colour is None or shape is None for colour, shape in kinds) or (len(seen) == 3 and len(kinds) > 1):
        return None
    try:
        if len(kinds) == 2:
            return _pair(sighting.background, seen[0], seen[1])
        return Scene(background=sighting.background, things=(_thing(seen),))
    except ValueError:  # what the world does not draw together
        return None


def _thing(seen: tuple[SeenObject, ...]) -> Thing:
    first = seen[0]
    colour, shape = str(first.colour), str(first.shape)
    if len(seen) > 1:
        return Thing(colour=colour, shape=shape, count=len(seen))
    return Thing(colour=colour, shape=shape, size=first.size or "medium", place=_place(first))


def _place(seen: SeenObject) -> str | None:
    """The side at which a lone thing stands, if it does."""
    for place, (x, y) in PLACES.items():
        along = (seen.x - 0.5) * (x - 0.5) + (seen.y - 0.5) * (y - 0.5)
        reach = abs(x - 0.5) + abs(y - 0.5)
        if along > _PLACE_OFFSET * reach:
            return place
    return None


def _pair(background: str, one: SeenObject, other: SeenObject) -> Scene:
    """Two things with the relation in which they stand most clearly; the order of their names makes it the same
    whichever is seen first."""
    first, second = sorted((one, other), key=lambda each: (str(each.colour), str(each.shape)))
    dx, dy = first.x - second.x, first.y - second.y
    relation = max(RELATIONS, key=lambda name: dx * RELATIONS[name][0] + dy * RELATIONS[name][1])
    things = tuple(Thing(colour=str(each.colour), shape=str(each.shape)) for each in (first, second))
    return Scene(background=background, things=things, relation=relation)
