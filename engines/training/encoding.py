"""From picture files to latents: opened upright, cut to size, encoded."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from engines.pocket.build.autoencoder import to_pixels
from studio.domain.buckets import Bucket, fit
from studio.domain.errors import DatasetError

logger = logging.getLogger(__name__)

FORMATS = ("PNG", "JPEG", "WEBP")


def cut(image: Image.Image, width: int, height: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """The middle of `image`, `(height, width, 3)`, once it is just large enough to cover it; and SDXL's
    micro-condition: original height and width, top, left, height and width."""
    how = fit(image.width, image.height, Bucket(width, height))
    resized = image.resize((how.width, how.height), Image.Resampling.LANCZOS)
    left, top = how.box[:2]
    return np.asarray(resized.crop(how.box)), (image.height, image.width, top, left, height, width)


def encoded(vae: Any, arrays: Sequence[np.ndarray], size: tuple[int, int]) -> Tensor:
    """The scaled latents of pictures `(height, width, 3)` of one `size`, (width, height): `(N, 4, h/8, w/8)`."""
    if not arrays:
        return torch.zeros(0, 4, size[1] // 8, size[0] // 8, dtype=torch.float16)
    return latents_of(vae, to_pixels(list(arrays)))


@torch.no_grad()
def latents_of(vae: Any, pixels: Tensor) -> Tensor:
    """The scaled latents of `pixels` `(N, 3, H, W)` in [-1, 1], in float16 and on the CPU.

    Raises:
        DatasetError: values ran over.
    """
    pixels = pixels.to(vae.device, vae.dtype)
    parts = [vae.encode(each[None]).latent_dist.mode() for each in pixels]  # one by one: large ones fill the memory
    latents = torch.cat(parts).float() * vae.config.scaling_factor
    if not torch.isfinite(latents).all():
        raise DatasetError("The encoder gave values that are not finite.", "Set FLASH_STUDIO_DTYPE=float32.")
    return latents.half().cpu()


def opened_upright(path: Path) -> Image.Image | None:
    """An RGB picture the right way up, transparency on white; None for a file that cannot be opened."""
    try:
        with Image.open(path, formats=FORMATS) as file:
            image = ImageOps.exif_transpose(file)
            if image.has_transparency_data:
                layer = image.convert("RGBA")
                image = Image.new("RGBA", layer.size, "white")
                image.alpha_composite(layer)
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        logger.warning("%s is left out: %s", path.name, error)
        return None
