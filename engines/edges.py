"""The edges of a picture as thin white lines on black: what an edge ControlNet is told (Canny, 1986,
doi:10.1109/TPAMI.1986.4767851), over colours, so that things of one brightness are told apart."""

import numpy as np
from PIL import Image
from scipy import ndimage

SIGMA_PX = 1.0
"""Width of the Gaussian by which noise is taken away before."""
LOW, HIGH = 0.05, 0.12
"""Steepness, as parts of black beside white: an edge is one that is as steep as the second somewhere, and as the first
all along."""


def edges(image: Image.Image) -> Image.Image:
    """The edges of `image`, RGB of its size: white lines of one pixel on black."""
    pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    smooth = ndimage.gaussian_filter(pixels, (SIGMA_PX, SIGMA_PX, 0))
    # Sobel's masks weigh 8 pixels, 4 on each side: an ideal step of 1 gives 4.
    down, across = (ndimage.sobel(smooth, axis) / 4 for axis in (0, 1))
    steepest = np.hypot(down, across).argmax(axis=2)[..., None]
    dy, dx = (np.take_along_axis(each, steepest, 2)[..., 0] for each in (down, across))
    steep = np.hypot(dy, dx)
    thin = steep * _is_ridge(steep, dy, dx)
    labels, _ = ndimage.label(thin > LOW, np.ones((3, 3)))
    strong = np.unique(labels[thin > HIGH])
    lines = np.isin(labels, strong[strong > 0])
    return Image.fromarray(lines * np.uint8(255)).convert("RGB")


def _is_ridge(steep: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """Where a picture is steeper than at both neighbours across the edge. Of two that are as steep, one stays."""
    sector = np.round(np.arctan2(dy, dx) / (np.pi / 4)).astype(int) % 4
    padded = np.pad(steep, 1)
    height, width = steep.shape
    kept = np.zeros(steep.shape, bool)
    for number, (y, x) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        ahead = padded[1 + y : 1 + y + height, 1 + x : 1 + x + width]
        behind = padded[1 - y : 1 - y + height, 1 - x : 1 - x + width]
        kept |= (sector == number) & (steep >= ahead) & (steep > behind)
    return kept
