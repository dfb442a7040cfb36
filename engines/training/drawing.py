"""Around the drawing of samples: noise before it; pixels, verdicts and files after it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engines.pocket.checker import judge
from engines.pocket.grammar import parse


@torch.no_grad()
def decoded(vae: Any, latents: Tensor) -> list[Image.Image]:
    """The pictures of scaled latents `(B, 4, h, w)`."""
    scaled = latents.to(vae.dtype) / vae.config.scaling_factor
    parts = [vae.decode(each[None]).sample for each in scaled]
    pixels = torch.cat(parts).float().clamp(-1, 1).add(1).mul(127.5).round().byte()
    return [Image.fromarray(np.ascontiguousarray(each.permute(1, 2, 0).cpu().numpy())) for each in pixels]


def noise_at(picks: range, size: int, seed: Sequence[int]) -> Tensor:
    """Noise `(B, 4, size/8, size/8)` for these numbers of a sequence, each drawn by itself."""
    rows = [np.random.default_rng([*seed, index]).standard_normal((4, size // 8, size // 8)) for index in picks]
    return torch.from_numpy(np.stack(rows)).float()


def judged(pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[bool]:
    """Whether each picture shows what its prompt says, by the checker; those of prompts that it cannot read are left
    out."""
    scenes = ((picture, parse(prompt)) for picture, prompt in zip(pictures, prompts, strict=True))
    return [judge(picture, scene).correct for picture, scene in scenes if scene is not None]


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture that a reader meets whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    picture.save(part, "PNG")
    part.replace(path)
