"""Name a shape by its mask: overlap with masks that the pocket world itself draws.

Masks are soft: 1 inside, 0 outside, between the two on an edge. Before comparing, a mask is moved to its centroid and
scaled to unit area, so only its form counts.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines.pocket.world import ALL_SHAPES, Scene, Thing, layout, render

Mask = NDArray[np.floating]

MIN_OVERLAPS = {
    "circle": 0.91,
    "square": 0.89,
    "triangle": 0.86,
    "star": 0.80,
    "heart": 0.87,
    "diamond": 0.86,
    "ring": 0.82,
    "cross": 0.84,
    "crescent": 0.78,
}
"""Least intersection over union with the best template. Shapes with corners to lose get more room; a circle, which
every shapeless blob resembles, gets the least."""

MIN_MARGIN = 0.04
"""Least lead over the best template of another shape: a form half-way between two shapes is neither."""

_SHARPENING = 2.0
_GRID = 40
_REACH = 1.1  # Half the grid's width in units of sqrt(area); the farthest corner, a diamond's, lies at 0.86.
_TURNS = tuple(np.linspace(-0.18, 0.18, 7))  # Radians. The world turns by at most 0.1; models are less tidy.
_HOLES = tuple(np.linspace(0.43, 0.67, 7))  # Widths of a ring's hole; the world's is 0.55.
_DRAWN_PX = 256


@dataclass(frozen=True, kw_only=True)
class _Templates:
    masks: Mask
    """`(shapes, forms, _GRID²)`, shapes in the order of `ALL_SHAPES`."""

    unit_areas: dict[str, float]
    """Area of each shape whose radius is 1."""


def match_shape(mask: Mask) -> str | None:
    """Name the shape of a soft `mask` `(H, W)`; None where no shape fits well or two fit alike."""
    overlaps = shape_overlaps(mask)
    best, second = sorted(overlaps, key=lambda shape: overlaps[shape], reverse=True)[:2]
    clear = overlaps[best] >= MIN_OVERLAPS[best] and overlaps[best] - overlaps[second] >= MIN_MARGIN
    return best if clear else None


def shape_overlaps(mask: Mask) -> dict[str, float]:
    """Give the intersection over union of `mask` `(H, W)` with each shape at its best turn, in `[0, 1]`."""
    seen = _normalise((_SHARPENING * (mask - 0.5) + 0.5).clip(0, 1)).ravel()
    templates = _templates().masks
    shared = np.minimum(templates, seen).sum(axis=2)
    overlap = shared / np.maximum(templates.sum(axis=2) + seen.sum() - shared, 1e-6)
    return dict(zip(ALL_SHAPES, overlap.max(axis=1).tolist(), strict=True))


def nominal_radius(shape: str, area: float) -> float:
    """Turn the area of `shape` (fraction of the image) into the world's radius (fraction of the side)."""
    return math.sqrt(area / _templates().unit_areas[shape])


def _normalise(mask: Mask, turn: float = 0.0) -> Mask:
    """Sample `mask` on a `(_GRID, _GRID)` grid about its centroid, in units of sqrt(area), turned by `turn`."""
    area = float(mask.sum())
    rows, columns = mask.sum(axis=1), mask.sum(axis=0)
    centre = np.array([rows @ np.arange(len(rows)), columns @ np.arange(len(columns))]) / area
    step = 2 * _REACH / _GRID * math.sqrt(area)
    cos, sin = math.cos(turn) * step, math.sin(turn) * step
    matrix = np.array([[cos, -sin], [sin, cos]])
    offset = centre - matrix @ np.full(2, (_GRID - 1) / 2)
    return ndimage.affine_transform(mask, matrix, offset, (_GRID, _GRID), order=1, prefilter=False)  # type: ignore[arg-type]


@functools.cache
def _templates() -> _Templates:
    drawn = {shape: _draw(shape) for shape in ALL_SHAPES}
    masks = []
    for shape, (mask, turn, _) in drawn.items():
        if shape == "ring":
            forms = [_ring(drawn["circle"][0], hole) for hole in _HOLES]
        else:
            forms = [_normalise(mask, wanted - turn) for wanted in _TURNS]
        masks.append([form.ravel() for form in forms])
    unit_areas = {shape: float(mask.mean()) / radius**2 for shape, (mask, _, radius) in drawn.items()}
    return _Templates(masks=np.asarray(masks, dtype=np.float32), unit_areas=unit_areas)


def _draw(shape: str) -> tuple[Mask, float, float]:
    """Let the world draw `shape`; returns its mask, turn (radians) and radius (fraction of the side)."""
    scene = Scene(background="black", things=(Thing(colour="white", shape=shape, size="large"),))
    placed = layout(scene, 0)[0]
    drawn = np.asarray(render(scene, 0, _DRAWN_PX).convert("L"), dtype=np.float32)
    mask = (drawn - drawn.min()) / (drawn.max() - drawn.min())
    # A grid cell spans about six of these pixels: soften by half a cell, as the masks that are seen are soft too.
    return ndimage.gaussian_filter(mask, 3.0), placed.turn, placed.radius


def _ring(disc: Mask, hole: float) -> Mask:
    """Cut out of `disc` a smaller one, `hole` times as wide."""
    centre = np.array(ndimage.center_of_mass(disc))
    offset = centre - centre / hole
    inner = ndimage.affine_transform(disc, np.full(2, 1 / hole), offset, order=1)  # type: ignore[arg-type]
    return _normalise(disc - inner)
