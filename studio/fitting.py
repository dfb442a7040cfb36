"""How a picture is brought to the size that is drawn, and made larger at its edges."""

import numpy as np
from PIL import Image

from studio.domain.beginning import ResizeModeName
from studio.domain.catalogue import Checkpoint

Size = tuple[int, int]
Borders = tuple[int, int, int, int]
"""Pixels to add on the left, above, on the right and below."""


def usual_size(source: Size, least: int, room: Size) -> Size:
    """The size at which a picture of `source` is drawn unless somebody says otherwise: its own in multiples of 8, made
    smaller or larger in its own form where that is beyond `room` or below `least` pixels a side."""
    width, height = source
    factor = min(1.0, room[0] / width, room[1] / height)
    factor = max(factor, least / width, least / height)
    return _side(width * factor, least, room[0]), _side(height * factor, least, room[1])


def room_for(checkpoint: Checkpoint, borders: Borders) -> Size:
    """How large the picture inside `borders` may be, so that `checkpoint` draws the whole."""
    left, up, right, down = borders
    most = checkpoint.max_size
    return max(most - left - right, checkpoint.min_size), max(most - up - down, checkpoint.min_size)


def fitted(image: Image.Image, size: Size, mode: ResizeModeName, *, is_mask: bool = False) -> Image.Image:
    """`image` at `size`: cut to its form, stretched, or put in the middle of it with its edges going on. A picture of
    that size is given as it is."""
    if image.size == size:
        return image
    resample = Image.Resampling.BILINEAR if is_mask else Image.Resampling.LANCZOS
    if mode == "stretch":
        return image.resize(size, resample)
    ratios = size[0] / image.width, size[1] / image.height
    factor = max(ratios) if mode == "crop" else min(ratios)
    width, height = (max(1, round(side * factor)) for side in image.size)
    scaled = image.resize((width, height), resample)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    if mode == "crop":
        return scaled.crop((-left, -top, size[0] - left, size[1] - top))
    return _continued(scaled, (left, top, size[0] - width - left, size[1] - height - top))


def widened(image: Image.Image, mask: Image.Image | None, borders: Borders) -> tuple[Image.Image, Image.Image]:
    """`image` with `borders` into which its edges go on, and the mask by which they are drawn: all that is new, and
    what `mask` shows of the old."""
    left, up, _, _ = borders
    canvas = _continued(image, borders)
    grown = Image.new("RGB", canvas.size, "white")
    grown.paste(mask or Image.new("RGB", image.size, "black"), (left, up))
    return canvas, grown


def black_and_white(mask: Image.Image) -> Image.Image:
    """`mask` with white from the middle grey on, and black below (mode L)."""
    grey = np.asarray(mask.convert("L"))
    return Image.fromarray(np.where(grey >= 128, 255, 0).astype(np.uint8))


def _continued(image: Image.Image, borders: Borders) -> Image.Image:
    left, up, right, down = borders
    return Image.fromarray(np.pad(np.asarray(image), ((up, down), (left, right), (0, 0)), mode="edge"))


def _side(length: float, least: int, most: int) -> int:
    return int(min(max(round(length / 8) * 8, least), most // 8 * 8))
