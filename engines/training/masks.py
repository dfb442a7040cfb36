"""What of a picture is learnt: masks at the size of latents, from files beside pictures or their own transparency.

They are kept on disk as latents are, under what they were made of.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from engines.training.encoding import FORMATS
from engines.training.saving import save_whole
from studio.domain.buckets import Bucket, fit
from studio.domain.datasets import mask_beside, mask_problem
from studio.domain.errors import DatasetError

_VERSION = 1
"""Of how masks are made: another one makes them anew."""
_CELL = 8
"""Pixels of a side that a latent stands for."""


class MaskStore:
    """Makes masks once. `floor` [0, 1] is how much that counts which they show black."""

    def __init__(self, folder: Path, floor: float) -> None:
        self._folder = folder
        self._floor = floor

    def take(self, path: Path, shape: tuple[int, int], size: tuple[int, int]) -> Tensor | None:
        """How much each latent of a picture counts, `(1, h, w)` from the floor to 1; None where all count alike.
        `shape` is the width and height of the picture at `path` once it is upright, `size` that which it is cut to.

        Raises:
            DatasetError: its mask cannot be used, by name.
            OSError: the folder cannot be written.
        """
        mask = self._kept(path, shape, size)
        if mask is None:
            return None
        if not mask.any():
            raise DatasetError(
                f"The mask of {path.name} leaves nothing to learn: all that it shows is cut off.",
                "Paint white what is to be learnt, keep the form of pictures (buckets), or leave this one out.",
            )
        weights = self._floor + (1 - self._floor) * mask
        return None if weights.min() == 1 else weights

    def _kept(self, path: Path, shape: tuple[int, int], size: tuple[int, int]) -> Tensor | None:
        """The mask of a picture alone, in [0, 1]; None where it has none."""
        beside = mask_beside(path)
        if beside is None and not _is_transparent(path):
            return None
        with (beside or path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = hashlib.sha256(json.dumps([_VERSION, digest, beside is None, shape, size]).encode()).hexdigest()
        place = self._folder / f"{key}.pt"
        if place.exists():
            return torch.load(place, weights_only=True)
        made = cut_mask(_grey(beside, shape) if beside else _opacity(path), shape, size)
        self._folder.mkdir(parents=True, exist_ok=True)
        save_whole(made, place)
        return made


def cut_mask(grey: Image.Image, shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The part of a mask that `encoding.cut` leaves of a picture of this `shape`, `(1, h/8, w/8)` in [0, 1]: the mean
    of the pixels that each latent stands for. `shape` and `size` are widths and heights."""
    if grey.size != shape:
        grey = grey.resize(shape, Image.Resampling.BILINEAR)
    how = fit(*shape, Bucket(*size))
    array = np.asarray(grey.resize((how.width, how.height), Image.Resampling.BILINEAR).crop(how.box), dtype=np.float32)
    return F.avg_pool2d(torch.from_numpy(array / 255)[None], _CELL)


def _grey(mask: Path, shape: tuple[int, int]) -> Image.Image:
    """A mask of a picture of this `shape`, upright; what is transparent in it is black."""
    try:
        with Image.open(mask, formats=FORMATS) as file:
            grey = _greys_of(ImageOps.exif_transpose(file))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"The mask {mask.name} cannot be opened.", "Save it again as a PNG file.") from error
    if problem := mask_problem(grey.size, shape, int(np.asarray(grey).max())):
        raise DatasetError(f"The mask {mask.name} {problem}.", "Paint it over a copy of its picture.")
    return grey


def _greys_of(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # convert() would cut off what is over 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "black")
        image.alpha_composite(layer)
    return image.convert("L")


def _is_transparent(picture: Path) -> bool:
    """Whether a picture, which can be opened, says of its pixels how far they are there."""
    with Image.open(picture, formats=FORMATS) as file:
        return file.has_transparency_data


def _opacity(picture: Path) -> Image.Image:
    """How far each pixel of an upright picture is there."""
    with Image.open(picture, formats=FORMATS) as file:
        return ImageOps.exif_transpose(file).convert("RGBA").getchannel("A")
