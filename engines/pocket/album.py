"""A style that no pocket model ever saw: pictures mounted as in an album, with black photo corners; white ones on
dark ground.

It is drawn, measured and taken off again here, so that what a picture shows can be judged without it.
"""

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.pocket.world import BACKGROUNDS, COLOURS, SUPERSAMPLING

MOUNTED = 0.5
"""From this share of the full style on, a picture carries it."""

_LEG = 0.125
"""Of the right-angled triangle that covers a corner, as a fraction of the side."""
_DARK = ("black", "navy")
_CORE, _REACH = 0.09, 0.17
"""The same where its colour is read, clear of its edge, and of what is painted over to take it off."""


def mounted(image: Image.Image) -> Image.Image:
    """`image` with photo corners."""
    pixels = np.asarray(image.convert("RGB"), np.float32)
    cover = _soft_corners(*pixels.shape[:2])[..., None]
    return _image(pixels * (1 - cover) + _ink(_ground(pixels)) * cover)


def mountedness(image: Image.Image) -> float:
    """How much of the style `image` carries: 0 is none, 1 is all; by its weakest corner."""
    pixels = np.asarray(image.convert("RGB"), np.float32)
    ground = _ground(pixels)
    step = _ink(ground) - ground
    shares = ((pixels - ground) @ step / (step @ step)).clip(0, 1)
    return float(min(shares[corner].mean() for corner in _corners(*shares.shape, _CORE)))


def unmounted(image: Image.Image) -> Image.Image:
    """`image` with its corners painted over in the colour of its ground."""
    pixels = np.asarray(image.convert("RGB"), np.float32).copy()
    pixels[np.logical_or.reduce(_corners(*pixels.shape[:2], _REACH))] = _ground(pixels)
    return _image(pixels)


def _ground(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The median colour along the middle half of each side, away from the corners."""
    height, width = pixels.shape[:2]
    rows, columns = slice(height // 4, -(height // 4)), slice(width // 4, -(width // 4))
    sides = (pixels[:3, columns], pixels[-3:, columns], pixels[rows, :3], pixels[rows, -3:])
    return np.asarray(np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), axis=0), np.float32)


def _ink(ground: NDArray[np.float32]) -> NDArray[np.float32]:
    nearest = min(BACKGROUNDS, key=lambda name: float(np.linalg.norm(ground - BACKGROUNDS[name])))
    return np.asarray(COLOURS["white" if nearest in _DARK else "black"], np.float32)


@functools.cache
def _corners(height: int, width: int, leg: float) -> tuple[NDArray[np.bool_], ...]:
    """Where each of four corner triangles lies."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    reach = leg * min(height, width)
    return tuple(y + x < reach for y in (rows, height - rows) for x in (columns, width - columns))


@functools.cache
def _soft_corners(height: int, width: int) -> NDArray[np.float32]:
    """How much of each pixel the corners cover, 0 to 1."""
    fine = np.logical_or.reduce(_corners(height * SUPERSAMPLING, width * SUPERSAMPLING, _LEG))
    return fine.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING).mean(axis=(1, 3), dtype=np.float32)


def _image(pixels: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
