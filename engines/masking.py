"""Where a picture may change: a mask for latents, and how the old picture and the new one are put together."""

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

_CELL_PX = 8


def changing_cells(mask: Image.Image) -> Tensor:
    """`(1, 1, H/8, W/8)`: 1 for each latent cell that a white pixel of `mask` lies in, else 0."""
    white = torch.from_numpy(_is_white(mask).astype(np.float32))[None, None]
    return torch.nn.functional.max_pool2d(white, _CELL_PX)


def composed(old: Image.Image, new: Image.Image, mask: Image.Image, blur_px: int) -> Image.Image:
    """`new` where `mask` is white, and the very bytes of `old` elsewhere; inside the white, over `blur_px` pixels, one
    fades into the other. All are of one size; the edge of the picture is no edge of the white."""
    is_white = _is_white(mask)
    # Distance 1 is a white pixel beside a black one; where nothing is black there is nothing to fade from.
    depth = ndimage.distance_transform_edt(is_white) if not is_white.all() else np.full(is_white.shape, np.inf)
    share = np.minimum(depth / (blur_px + 1), 1.0)[..., None]
    before, after = (np.asarray(image, dtype=np.float64) for image in (old, new))
    mixed = np.rint(before + share * (after - before)).astype(np.uint8)
    return Image.fromarray(mixed)


def _is_white(mask: Image.Image) -> np.ndarray:
    return np.asarray(mask.convert("L")) >= 128
