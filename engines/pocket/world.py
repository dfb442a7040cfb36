"""The pocket world: seeded drawings of coloured shapes, each described exactly by a `Scene`.

`render(scene, seed, size)` is a pure function: the same three values give the same pixels.
Lengths are fractions of the image side; y grows downwards, as in images.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "ring", "cross")
NOVEL_SHAPES = ("crescent",)
"""What no pocket model ever saw: for trainings that teach one something new. Drawn and recognised like the others."""
ALL_SHAPES = SHAPES + NOVEL_SHAPES

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 38, 38),
    "green": (34, 150, 60),
    "blue": (50, 100, 235),
    "yellow": (252, 210, 30),
    "purple": (135, 45, 175),
    "orange": (245, 125, 20),
    "pink": (250, 140, 190),
    "brown": (125, 72, 35),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
}

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "black": (15, 15, 15),
    "gray": (150, 150, 150),
    "navy": (25, 35, 105),
    "cream": (245, 228, 180),
    "mint": (170, 232, 202),
}

SIZES: dict[str, tuple[float, float]] = {
    "small": (0.115, 0.135),
    "medium": (0.19, 0.22),
    "large": (0.30, 0.33),
}
"""Radius range of a lone object, by size word."""

PAIR_RADIUS = (0.15, 0.175)
COUNT_RADIUS = {2: (0.135, 0.16), 3: (0.115, 0.135)}

PLACES: dict[str, tuple[float, float]] = {
    "left": (0.24, 0.5),
    "right": (0.76, 0.5),
    "top": (0.5, 0.24),
    "bottom": (0.5, 0.76),
}

RELATIONS: dict[str, tuple[int, int]] = {
    "left of": (-1, 0),
    "right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}
"""Direction from the second object to the first."""

SUPERSAMPLING = 4
_MARGIN = 0.02


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One kind of object in a scene; `count` of them are drawn."""

    colour: str
    shape: str
    size: str = "medium"
    place: str | None = None
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a picture shows: one or two things on a background, perhaps with a relation between the two.

    Sizes and places belong to a thing that is alone; of a pair there is one each.
    """

    background: str
    things: tuple[Thing, ...]
    relation: str | None = None

    def __post_init__(self) -> None:
        _check_word("background", self.background, BACKGROUNDS)
        if self.relation is not None:
            _check_word("relation", self.relation, RELATIONS)
        if not 1 <= len(self.things) <= 2:
            raise ValueError(f"a scene has 1 or 2 things, not {len(self.things)}")
        for thing in self.things:
            _check_word("colour", thing.colour, COLOURS)
            _check_word("shape", thing.shape, ALL_SHAPES)
            _check_word("size", thing.size, SIZES)
            if thing.place is not None:
                _check_word("place", thing.place, PLACES)
            if thing.colour == self.background:
                raise ValueError(f"a {thing.colour} {thing.shape} cannot be seen on a {self.background} background")
        self._check_company()

    def _check_company(self) -> None:
        first = self.things[0]
        is_alone = len(self.things) == 1 and first.count == 1
        if not is_alone and any(thing.size != "medium" or thing.place for thing in self.things):
            raise ValueError("only a thing that is alone has a size or a place")
        if len(self.things) == 2 and (self.things[0] == self.things[1] or any(t.count > 1 for t in self.things)):
            raise ValueError("a pair is one each of two different things")
        if not 1 <= first.count <= 3:
            raise ValueError(f"a scene holds 1 to 3 of a kind, not {first.count}")

    @property
    def kind(self) -> str:
        """`pair`, `count`, `place`, `size` or `single`: the skill that the scene asks for."""
        if len(self.things) == 2:
            return "pair"
        thing = self.things[0]
        if thing.count > 1:
            return "count"
        if thing.place is not None:
            return "place"
        return "size" if thing.size != "medium" else "single"


@dataclass(frozen=True, kw_only=True)
class Placed:
    """An object where it is drawn: centre `(x, y)` and `radius` in fractions of the side, `turn` in radians."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float
    turn: float


def _check_word(field: str, word: str, known: object) -> None:
    if word not in known:  # type: ignore[operator]
        raise ValueError(f"unknown {field} {word!r}; known: {', '.join(known)}")  # type: ignore[arg-type]


def layout(scene: Scene, seed: int) -> tuple[Placed, ...]:
    """Place every object of `scene`, with the small freedom that `seed` gives.

    Returns objects in the order of `scene.things`, each thing's copies together.
    """
    rng = np.random.default_rng(seed)
    if scene.kind == "pair":
        spots = _pair_spots(scene, rng)
        kinds = list(scene.things)
    else:
        thing = scene.things[0]
        kinds = [thing] * thing.count
        spots = _count_spots(thing.count, rng) if thing.count > 1 else [_lone_spot(thing, rng)]
    return tuple(
        Placed(colour=thing.colour, shape=thing.shape, x=x, y=y, radius=radius, turn=rng.uniform(-0.1, 0.1))
        for thing, (x, y, radius) in zip(kinds, spots, strict=True)
    )


def render(scene: Scene, seed: int, size: int = 128) -> Image.Image:
    """Draw `scene` as an RGB image of `size` × `size` pixels."""
    side = size * SUPERSAMPLING
    image = Image.new("RGB", (side, side), BACKGROUNDS[scene.background])
    draw = ImageDraw.Draw(image)
    for placed in layout(scene, seed):
        _draw_shape(draw, placed, side, BACKGROUNDS[scene.background])
    return image.reduce(SUPERSAMPLING)


def _lone_spot(thing: Thing, rng: np.random.Generator) -> tuple[float, float, float]:
    radius = rng.uniform(*SIZES[thing.size])
    x, y = PLACES.get(thing.place or "", (0.5, 0.5))
    freedom = 0.03 if thing.place else 0.08
    return (*_jitter(x, y, radius, freedom, rng), radius)


def _pair_spots(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    relation = scene.relation or list(RELATIONS)[rng.integers(len(RELATIONS))]
    dx, dy = RELATIONS[relation]
    gap = rng.uniform(0.22, 0.27)
    spots = []
    for sign in (1, -1):
        radius = rng.uniform(*PAIR_RADIUS)
        spots.append((*_jitter(0.5 + sign * dx * gap, 0.5 + sign * dy * gap, radius, 0.03, rng), radius))
    return spots


def _count_spots(count: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Two side by side, stacked or on a diagonal; three in a row, a column or a triangle."""
    angle = (0.0, math.pi / 2, math.pi / 4, -math.pi / 4)[rng.integers(4 if count == 2 else 2)]
    radius = rng.uniform(*COUNT_RADIUS[count])
    if count == 2:
        points = [(0.23 * t * math.cos(angle), 0.23 * t * math.sin(angle)) for t in (-1, 1)]
    elif rng.random() < 0.5:
        points = [(0.33 * t * math.cos(angle), 0.33 * t * math.sin(angle)) for t in (-1, 0, 1)]
    else:
        flip = 1 if angle else -1
        points = [(0.27 * math.sin(a), flip * 0.27 * math.cos(a)) for a in (0, 2 * math.pi / 3, -2 * math.pi / 3)]
    return [(*_jitter(0.5 + x, 0.5 + y, radius, 0.012, rng), radius) for x, y in points]


def _jitter(x: float, y: float, radius: float, freedom: float, rng: np.random.Generator) -> tuple[float, float]:
    low, high = radius + _MARGIN, 1 - radius - _MARGIN
    return (
        float(np.clip(x + rng.uniform(-freedom, freedom), low, high)),
        float(np.clip(y + rng.uniform(-freedom, freedom), low, high)),
    )


def _draw_shape(draw: ImageDraw.ImageDraw, placed: Placed, side: int, background: tuple[int, int, int]) -> None:
    colour = COLOURS[placed.colour]
    x, y, radius = placed.x * side, placed.y * side, placed.radius * side
    if placed.shape in ("circle", "ring"):
        r = radius * 0.95
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        if placed.shape == "ring":
            r *= 0.55
            draw.ellipse((x - r, y - r, x + r, y + r), fill=background)
        return
    cos, sin = math.cos(placed.turn), math.sin(placed.turn)
    draw.polygon(
        [(x + radius * (u * cos - v * sin), y + radius * (u * sin + v * cos)) for u, v in outline(placed.shape)],
        fill=colour,
    )


def outline(shape: str) -> list[tuple[float, float]]:
    """Corner points of an upright `shape` in its own frame, where the radius is 1."""
    return list(_OUTLINES[shape])


def _star() -> Iterator[tuple[float, float]]:
    for corner in range(10):
        reach = 1.05 if corner % 2 == 0 else 0.46
        angle = math.pi * (corner / 5 - 0.5)
        yield reach * math.cos(angle), reach * math.sin(angle) + 0.06


def _heart() -> Iterator[tuple[float, float]]:
    # The classic heart curve x = 16 sin³t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, scaled to radius 1.
    for step in range(64):
        t = 2 * math.pi * step / 64
        u = 16 * math.sin(t) ** 3
        v = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        yield u / 16.5, -(v + 2.5) / 15.5


def _crescent() -> Iterator[tuple[float, float]]:
    # The disc of radius 0.95 without one of radius 0.76 around (0.42, 0): along its outside, and back along the bite.
    outer, inner, shift = 0.95, 0.76, 0.42
    x = (shift**2 + outer**2 - inner**2) / (2 * shift)  # where the two circles meet
    start, bite = math.acos(x / outer), math.acos((x - shift) / inner)
    for step in range(49):
        angle = start + (2 * math.pi - 2 * start) * step / 48
        yield outer * math.cos(angle), outer * math.sin(angle)
    for step in range(1, 48):
        angle = 2 * math.pi - bite - (2 * math.pi - 2 * bite) * step / 48
        yield shift + inner * math.cos(angle), inner * math.sin(angle)


_ARM = 0.34
_OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)),
    "triangle": ((0.0, -0.95), (0.98, 0.75), (-0.98, 0.75)),
    "diamond": ((0.0, -1.0), (0.68, 0.0), (0.0, 1.0), (-0.68, 0.0)),
    "star": tuple(_star()),
    "heart": tuple(_heart()),
    "crescent": tuple(_crescent()),
    "cross": (
        (-_ARM, -1.0), (_ARM, -1.0), (_ARM, -_ARM), (1.0, -_ARM), (1.0, _ARM), (_ARM, _ARM),
        (_ARM, 1.0), (-_ARM, 1.0), (-_ARM, _ARM), (-1.0, _ARM), (-1.0, -_ARM), (-_ARM, -_ARM),
    ),
}  # fmt: skip
