"""The training pictures of a seed: drawn when needed, their latents kept."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from engines.pocket.build.autoencoder import to_pixels
from engines.pocket.sampling import sample_scene
from engines.pocket.world import Scene, render

MIN_ORIGINAL, MAX_CANVAS = 0.5, 1.4
"""Least size of an original that is enlarged, and largest of one that is cropped, as parts of the picture's side."""


THREES_EMPHASIS, WHOLE_EMPHASIS = 3.0, 2.0
"""How often a UNet meets scenes of three things, and pictures that are whole, against others. A fourth thing was the
commonest fault of pocket-sdxl, and cropped or enlarged pictures are only there to be told apart from whole ones."""


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How a picture was cut from its original, in pixels; SDXL is told (Podell et al., 2023, arXiv:2307.01952)."""

    original_px: int
    top: int = 0
    left: int = 0

    def is_whole(self, size: int) -> bool:
        """Tell whether the picture is all of an original of `size`."""
        return self.original_px == size


@dataclass(frozen=True, kw_only=True)
class LatentSet:
    """Training scenes with their scaled latents `(N, 4, H/8, W/8)`, float16. `is_framed`: cut as `framing_at` says."""

    scenes: tuple[Scene, ...]
    latents: Tensor
    seed: int
    size: int
    is_framed: bool = False

    @cached_property
    def shares(self) -> np.ndarray:
        """The chance of each scene to be drawn for a training step, `(N,)`."""
        counts = [sum(thing.count for thing in scene.things) for scene in self.scenes]
        weights = np.where(np.array(counts) > 2, THREES_EMPHASIS, 1.0)
        if self.is_framed:
            frames = (framing_at(self.seed, index, self.size) for index in range(len(self.scenes)))
            weights *= [WHOLE_EMPHASIS if frame.is_whole(self.size) else 1.0 for frame in frames]
        return weights / weights.sum()

    def pixels(self, picks: Iterable[int]) -> Tensor:
        """The pictures that the latents were made from, `(B, 3, H, W)` in [-1, 1]."""
        return draw_pictures(self.scenes, picks, self.seed, self.size, self.is_framed)

    def time_ids(self, picks: Iterable[int]) -> Tensor | None:
        """SDXL's micro-conditions `(B, 6)`: original size, top left corner and size, each height first."""
        if not self.is_framed:
            return None
        return framing_ids(self.seed, picks, self.size)


def cache_latents(
    vae: AutoencoderKL, path: Path, count: int, size: int, seed: int = 0, is_framed: bool = False
) -> LatentSet:
    """Draw `count` training scenes and encode them, or load what the same call left at `path`."""
    scenes = tuple(scene_at(seed, index) for index in range(count))
    key = f"{count}-{size}-{seed}" + ("-framed" if is_framed else "")
    latents = _kept(path, key)
    if latents is None:
        chunks = []
        with torch.no_grad():
            for start in range(0, count, 32):
                picks = range(start, min(start + 32, count))
                pixels = draw_pictures(scenes, picks, seed, size, is_framed)
                chunks.append((vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor).half())
        latents = torch.cat(chunks)
        torch.save({"key": key, "latents": latents}, path)
    return LatentSet(scenes=scenes, latents=latents, seed=seed, size=size, is_framed=is_framed)


def scene_at(seed: int, index: int) -> Scene:
    """The `index`-th training scene."""
    return sample_scene(np.random.default_rng([seed, 2, index]))


def framing_at(seed: int, index: int, size: int) -> Framing:
    """How the `index`-th picture is cut: half are whole, a quarter enlarged from a smaller original, a quarter cropped
    from a larger one."""
    rng = np.random.default_rng([seed, 6, index])
    turn = rng.random()
    if turn < 0.5:
        return Framing(original_px=size)
    if turn < 0.75:
        return Framing(original_px=int(rng.integers(int(MIN_ORIGINAL * size), size)))
    canvas = int(rng.integers(size + 1, int(MAX_CANVAS * size)))
    top, left = (int(corner) for corner in rng.integers(canvas - size + 1, size=2))
    return Framing(original_px=canvas, top=top, left=left)


def framing_ids(seed: int, picks: Iterable[int], size: int) -> Tensor:
    """How these pictures are cut, as SDXL is told it, `(B, 6)`; see `LatentSet.time_ids`."""
    frames = [framing_at(seed, int(index), size) for index in picks]
    rows = [(f.original_px, f.original_px, f.top, f.left, size, size) for f in frames]
    return torch.tensor(rows, dtype=torch.float32)


def draw_pictures(
    scenes: Sequence[Scene] | Mapping[int, Scene], picks: Iterable[int], seed: int, size: int, is_framed: bool
) -> Tensor:
    """The training pictures of these indices, `(B, 3, size, size)` in [-1, 1]."""
    return to_pixels([draw_scene(scenes[i], seed, int(i), size, is_framed) for i in picks])


def draw_scene(scene: Scene, seed: int, index: int, size: int, is_framed: bool = False) -> np.ndarray:
    """The `index`-th training picture, `(size, size, 3)` in [0, 255]."""
    frame = framing_at(seed, index, size) if is_framed else Framing(original_px=size)
    picture = render(scene, seed * 10_000_000 + index, frame.original_px)
    if frame.original_px < size:
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture)[frame.top : frame.top + size, frame.left : frame.left + size]


def _kept(path: Path, key: str) -> Tensor | None:
    kept = torch.load(path, weights_only=True) if path.exists() else {}
    return kept["latents"] if kept.get("key") == key else None
