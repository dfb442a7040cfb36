"""Look at a picture of the pocket world and judge it against a `Scene`, exactly and without any model.

`see` names what a picture shows, `judge` compares that with what was asked. Both fail closed: what matches nothing
clearly is None, and None is never right.
"""

import functools
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, optimize

from engines.pocket.shape_match import match_shape, nominal_radius
from engines.pocket.world import BACKGROUNDS, COLOURS, RELATIONS, Scene, Thing

Pixels = NDArray[np.floating]
Flags = NDArray[np.bool_]

SIZE_BANDS = {"small": (0.085, 0.158), "medium": (0.167, 0.25), "large": (0.267, 0.40)}
"""Radius that each size word allows; between two bands a size is neither."""

MIN_OBJECT = 0.003
"""Least area of an object, as a fraction of the image; anything smaller is a speckle. The world's least is 0.018."""

_WORKING_PX = 128
_BORDER_PX = 3
_EDGE_PX = 4
_MAX_BORDER_SHARE = 0.15
_MAX_TRACE = 0.02
# Distances in CIE 1976 Lab. White on cream, the faintest drawing, differs by 27; backgrounds lie 27 apart, object
# colours 35 (blue and purple).
_FAINT_DELTA = 10.0
_FOREGROUND_DELTAS = (12.0, 20.0)
_BACKGROUND_LIMIT = 13.0
_COLOUR_LIMIT = 24.0
_COLOUR_RATIO = 0.7
_SPLIT_DELTA = 22.0
_SPLIT_SHARE = 0.1
_SPLIT_DEPTH_PX = 3.0
_KEPT_SHARE = 0.75
_PURE_DELTA = 25.0
_MIN_PURITY = 0.7
_PLACE_OFFSET, _RELATION_OFFSET = 0.12, 0.10
_PLACE_DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}


@dataclass(frozen=True, kw_only=True)
class SeenObject:
    """One blob in a picture. Lengths are fractions of the side; None means that it matches nothing known."""

    colour: str | None
    shape: str | None
    x: float
    """Centroid, from the left."""

    y: float
    """Centroid, from the top."""

    area: float
    """Fraction of the image."""

    radius: float | None
    """The radius with which the world would draw it; None where the shape is unknown."""

    size: str | None
    """`small`, `medium` or `large` by the world's radii for a lone object."""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What a picture shows; the largest object first."""

    background: str | None
    objects: tuple[SeenObject, ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which of the skills that a scene asks for its picture shows; None where the scene doesn't ask.

    Seen objects are first matched one to one with the asked ones, so that as much as possible agrees.
    """

    presence: bool
    """Each asked thing is there, in the right colour and shape, whatever its number."""

    colour: bool
    """Whatever stands for an asked object has its colour."""

    shape: bool
    """Whatever stands for an asked object has its shape."""

    count: bool
    """Exactly as many objects as asked, each sharing at least its colour or its shape with the thing it stands for."""

    background: bool
    relation: bool | None = None
    place: bool | None = None
    size: bool | None = None

    @property
    def asked(self) -> dict[str, bool]:
        """The verdict of each skill that the scene asks for, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def correct(self) -> bool:
        """Whether every asked skill is right, and with it the whole picture."""
        return all(self.asked.values())


def see(image: Image.Image) -> Sighting:
    """Name the background and the objects of `image`, a roughly square picture of 64 to 512 pixels a side."""
    pixels = _prepare(image)
    lab = _to_lab(pixels)
    ground = np.median(_border(lab), axis=0)
    contrast = np.linalg.norm(lab - ground, axis=2)
    foreground = contrast > _least_contrast(ground)
    least = MIN_OBJECT * foreground.size
    labels, areas = _label(foreground)
    objects: list[SeenObject] = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if areas[label] < least:
            continue
        window = _Window.cut(box, pixels, lab, foreground)
        for part in _split_by_colour(labels[window.box] == label, window.lab, least):
            objects += _see_part(part, window, np.median(_border(pixels), axis=0))
    plain = _is_plain(contrast, (areas >= least)[labels])
    known = _nearest(ground, BACKGROUNDS, _BACKGROUND_LIMIT) if plain else None
    return Sighting(background=known, objects=tuple(sorted(objects, key=lambda seen: -seen.area)))


def judge(image: Image.Image, scene: Scene) -> Verdict:
    """Judge whether `image` shows exactly `scene`: all that it asks for, in the right number, and nothing else."""
    return compare(see(image), scene)


def compare(sighting: Sighting, scene: Scene) -> Verdict:
    """Judge a picture that was already seen, as `judge` does."""
    asked = [thing for thing in scene.things for _ in range(thing.count)]
    pairs = _assign(asked, sighting.objects)
    met = {thing for thing, _ in pairs}
    related = all(thing.colour == seen.colour or thing.shape == seen.shape for thing, seen in pairs)
    first = [seen for thing, seen in pairs if thing == scene.things[0]]
    wants_size = len(asked) == 1 and asked[0].size != "medium"
    return Verdict(
        presence=all(_find(thing, sighting) for thing in scene.things),
        colour=met == set(asked) and all(thing.colour == seen.colour for thing, seen in pairs),
        shape=met == set(asked) and all(thing.shape == seen.shape for thing, seen in pairs),
        count=len(sighting.objects) == len(asked) and related,
        background=sighting.background == scene.background,
        relation=None if scene.relation is None else _stand(scene, sighting),
        place=None if scene.things[0].place is None else _all_at(scene.things[0].place, first),
        size=(len(first) == 1 and first[0].size == asked[0].size) if wants_size else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Window:
    """A rectangle of the picture around one blob. `pixels` are RGB in `[0, 255]`."""

    box: tuple[slice, slice]
    pixels: Pixels
    lab: Pixels
    foreground: Flags
    picture: tuple[int, int]
    """Height and width of the whole picture in pixels."""

    @classmethod
    def cut(cls, box: tuple[slice, slice], pixels: Pixels, lab: Pixels, foreground: Flags) -> "_Window":
        """Cut out `box` with a margin that holds the soft edge."""
        wide = tuple(slice(max(0, side.start - _EDGE_PX), side.stop + _EDGE_PX) for side in box)
        window = (wide[0], wide[1])
        height, width = foreground.shape
        return cls(
            box=window,
            pixels=pixels[window],
            lab=lab[window],
            foreground=foreground[window],
            picture=(height, width),
        )


def _prepare(image: Image.Image) -> Pixels:
    """Bring `image` to about 128 pixels a side, proportions kept, and calm its noise: `(H, W, 3)` in `[0, 255]`."""
    image = image.convert("RGB")
    scale = 2 * _WORKING_PX / (image.width + image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    calm = _median_of_three(_median_of_three(np.asarray(image), axis=0), axis=1)
    return ndimage.gaussian_filter(calm.astype(np.float32), (0.6, 0.6, 0.0), truncate=3.0)


def _median_of_three(values: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    """The median of each value and its two neighbours along `axis`; along both axes, it removes lone specks."""
    padded = np.pad(values, [(1, 1) if axis == side else (0, 0) for side in range(values.ndim)], mode="edge")
    count = values.shape[axis]
    before, after = (padded.take(np.arange(start, start + count), axis) for start in (0, 2))
    return np.maximum(np.minimum(before, after), np.minimum(np.maximum(before, after), values))


_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=np.float32,
) / np.array([[0.95047], [1.0], [1.08883]], dtype=np.float32)


def _to_lab(rgb: Pixels) -> Pixels:
    """Turn sRGB `(..., 3)` in `[0, 255]` into CIE 1976 Lab under D65."""
    unit = rgb / np.float32(255)
    linear = np.where(
        unit <= 0.04045, unit / np.float32(12.92), ((unit + np.float32(0.055)) / np.float32(1.055)) ** 2.4
    )
    xyz = linear @ _TO_XYZ.T
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), xyz * np.float32(841 / 108) + np.float32(4 / 29))
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _border(pixels: NDArray[Any]) -> NDArray[Any]:
    """The outermost of the pixels `(H, W, ...)`, as `(N, ...)`."""
    width = _BORDER_PX
    sides = (pixels[:width], pixels[-width:], pixels[width:-width, :width], pixels[width:-width, -width:])
    return np.concatenate([side.reshape(-1, *pixels.shape[2:]) for side in sides])


@functools.cache
def _palette(colours: tuple[tuple[int, int, int], ...]) -> Pixels:
    return _to_lab(np.array(colours, np.float32))


def _nearest(lab: Pixels, palette: dict[str, tuple[int, int, int]], limit: float) -> str | None:
    """Name the colour of `palette` nearest to `lab`; None where it is far off or nearly between two."""
    distances = np.linalg.norm(_palette(tuple(palette.values())) - lab, axis=1)
    best, second = np.argsort(distances)[:2]
    clear = distances[best] <= limit and distances[best] <= _COLOUR_RATIO * distances[second]
    return list(palette)[int(best)] if clear else None


def _least_contrast(ground: Pixels) -> float:
    """How far from `ground` (Lab) a pixel must be to belong to an object: just short of half-way to any colour."""
    nearest = np.sort(np.linalg.norm(_palette(tuple(COLOURS.values())) - ground, axis=1))
    return float(np.clip(0.45 * nearest[nearest > _BACKGROUND_LIMIT][0], *_FOREGROUND_DELTAS))


def _is_plain(contrast: Pixels, covered: Flags) -> bool:
    """Whether the ground is one even colour: along the border, and wherever it isn't `covered` by objects."""
    faint = contrast > _FAINT_DELTA
    trace = faint & ~_grow(covered, _EDGE_PX)
    return _border(faint).mean() <= _MAX_BORDER_SHARE and trace.mean() <= _MAX_TRACE


def _interior(blob: Flags) -> Flags:
    """The part of `blob` that is clear of its soft edge, however thin its strokes are."""
    depth = _depth(blob)
    return depth >= min(3.0, 0.6 * depth.max())


def _depth(blob: Flags) -> Pixels:
    """Distance of each pixel of `blob` to its outside, in pixels."""
    return np.asarray(ndimage.distance_transform_edt(np.pad(blob, 1)))[1:-1, 1:-1]


def _split_by_colour(blob: Flags, lab: Pixels, least: float) -> list[Flags]:
    """Take apart a blob in which two objects of different colours touch; a blob of one colour stays whole."""
    deep = _depth(blob) >= _SPLIT_DEPTH_PX
    if not deep.any():
        return [blob]
    seen = lab[deep]
    nearest = np.linalg.norm(seen[:, None] - _palette(tuple(COLOURS.values())), axis=2).argmin(axis=1)
    shares = np.bincount(nearest) / len(nearest)
    medians: list[Pixels] = []
    for index in np.argsort(-shares)[: np.count_nonzero(shares >= _SPLIT_SHARE)]:
        median = np.median(seen[nearest == index], axis=0)
        apart = all(np.linalg.norm(median - other) > _SPLIT_DELTA for other in medians)
        if apart and _nearest(median, COLOURS, _COLOUR_LIMIT):
            medians.append(median)
    if len(medians) < 2:
        return [blob]
    owner = np.linalg.norm(lab[..., None, :] - np.array(medians), axis=3).argmin(axis=2)
    parts = [part for index in range(len(medians)) for part in _pieces(blob & (owner == index), least)]
    # A band that is thin all over is a soft edge, and no object in itself.
    parts = [part for part in parts if (_depth(part) >= _SPLIT_DEPTH_PX).sum() > _SPLIT_SHARE * part.sum()]
    # A texture falls to crumbs; losing those would hide an object.
    return parts if len(parts) > 1 and sum(part.sum() for part in parts) > _KEPT_SHARE * blob.sum() else [blob]


def _pieces(flags: Flags, least: float) -> list[Flags]:
    """The connected pieces of `flags` that have at least `least` pixels."""
    labels, areas = _label(flags)
    return [labels == label for label in np.flatnonzero(areas >= least)]


def _grow(flags: Flags, reach_px: int) -> Flags:
    return np.asarray(ndimage.binary_dilation(flags, iterations=reach_px), dtype=np.bool_)


def _label(flags: Flags) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Number the connected pieces of `flags` from 1; also gives each label's pixels, none for 0, the rest."""
    labels = np.asarray(ndimage.label(flags)[0], dtype=np.int_)  # type: ignore[index]
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return labels, areas


# Luma, then blue and red differences at a third of their weight: JPEG, and eyes, blur those.
_LUMA_FIRST = np.array([[0.299, 0.587, 0.114], [-0.056, -0.110, 0.167], [0.167, -0.140, -0.027]], dtype=np.float32)


def _see_part(part: Flags, window: _Window, ground: Pixels) -> list[SeenObject]:
    """Describe a blob of one colour, which may still be several objects joined by their soft edges.

    The mask is each pixel's place on the straight line from the `ground` colour (RGB) to the blob's own, 0 to 1.
    """
    from_ground = (window.pixels - ground) @ _LUMA_FIRST.T
    direction = np.median(from_ground[_interior(part)], axis=0)
    near = _grow(part, 2) & (part | ~window.foreground)
    mask = np.where(near, from_ground @ direction / max(direction @ direction, 1.0), 0).clip(0, 1).astype(np.float32)
    least = MIN_OBJECT * window.picture[0] * window.picture[1]
    bodies = _pieces(mask > 0.5, least)
    strong = np.linalg.norm(window.lab - _to_lab(ground), axis=2) > _FOREGROUND_DELTAS[1]
    # What hangs on to the bodies in some other colour, or all of a texture whose colours cancel out.
    odd = _pieces(part & strong & ~_grow(np.logical_or.reduce(bodies), _EDGE_PX), least) if bodies else [part]
    objects = [_describe(blob.astype(np.float32), blob, window) for blob in odd]
    if len(bodies) == 1:
        return [_describe(mask, part, window), *objects]
    distances = [np.asarray(ndimage.distance_transform_edt(~body)) for body in bodies]
    for index, body in enumerate(bodies):
        own = np.where(np.argmin(distances, axis=0) == index, mask, 0)
        objects.append(_describe(own, body, window))
    return objects


def _describe(mask: Pixels, body: Flags, window: _Window) -> SeenObject:
    """Name the object whose soft mask is `mask`; `body` is where its colour is read."""
    core = window.lab[_interior(body)]
    median = np.median(core, axis=0)
    pure = (np.linalg.norm(core - median, axis=1) < _PURE_DELTA).mean() >= _MIN_PURITY
    height, width = window.picture
    total = float(mask.sum())
    area = total / (height * width)
    shape = match_shape(mask)
    radius = None if shape is None else nominal_radius(shape, area)
    rows, columns = (np.arange(count) + side.start + 0.5 for count, side in zip(mask.shape, window.box, strict=True))
    return SeenObject(
        colour=_nearest(median, COLOURS, _COLOUR_LIMIT) if pure else None,
        shape=shape,
        x=float(mask.sum(axis=0) @ columns) / total / width,
        y=float(mask.sum(axis=1) @ rows) / total / height,
        area=area,
        radius=radius,
        size=next((name for name, (low, high) in SIZE_BANDS.items() if radius and low <= radius <= high), None),
    )


def _assign(asked: list[Thing], objects: tuple[SeenObject, ...]) -> list[tuple[Thing, SeenObject]]:
    """Pair asked and seen objects one to one for the most agreement; a right colour breaks ties."""
    if not objects:
        return []
    gain = [[3.0 * (a.colour == o.colour) + 2.9 * (a.shape == o.shape) for o in objects] for a in asked]
    rows, columns = optimize.linear_sum_assignment(gain, maximize=True)
    return [(asked[row], objects[column]) for row, column in zip(rows, columns, strict=True)]


def _find(thing: Thing, sighting: Sighting) -> list[SeenObject]:
    return [seen for seen in sighting.objects if (seen.colour, seen.shape) == (thing.colour, thing.shape)]


def _stand(scene: Scene, sighting: Sighting) -> bool:
    """Whether the first thing stands to the second as asked; both must be there to tell."""
    direction = RELATIONS[scene.relation or ""]
    firsts, seconds = (_find(thing, sighting) for thing in scene.things)
    return any(_lies(a.x - b.x, a.y - b.y, direction, _RELATION_OFFSET) for a in firsts for b in seconds if a is not b)


def _all_at(place: str, objects: list[SeenObject]) -> bool:
    direction = _PLACE_DIRECTIONS[place]
    return bool(objects) and all(_lies(o.x - 0.5, o.y - 0.5, direction, _PLACE_OFFSET) for o in objects)


def _lies(dx: float, dy: float, direction: tuple[int, int], least: float) -> bool:
    along, across = (dx * direction[0] + dy * direction[1]), abs(dx * direction[1] - dy * direction[0])
    return along > least and along > across
