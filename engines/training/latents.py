"""Latents of training pictures, kept on disk under what they were made of: a picture, an encoder, a size."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from engines.training.encoding import cut, encoded, opened_upright
from engines.training.masks import MaskStore
from engines.training.saving import save_whole
from studio.domain.errors import DatasetError

_VERSION = 1
"""Of how pictures are made into latents: another one makes them anew."""


@dataclass(frozen=True, kw_only=True)
class TrainingPicture:
    """Scaled latents `(4, h, w)` in float16, SDXL's micro-condition, the caption, and how much each latent counts,
    `(1, h, w)`: None where all count alike."""

    latents: Tensor
    time_ids: tuple[int, ...]
    caption: str
    weights: Tensor | None = None


class LatentStore:
    """Makes latents once. `weights` names the encoder; whatever changes a picture's bytes makes it another one. `masks`
    say what of a picture counts, where they are asked for."""

    def __init__(self, folder: Path, vae: Any, weights: str, masks: MaskStore | None = None) -> None:
        self._folder = folder
        self._vae = vae
        self._weights = weights
        self._masks = masks

    def take(self, path: Path, size_of: Callable[[int, int], tuple[int, int]], caption: str) -> TrainingPicture | None:
        """The latents of the picture at `path` in the size that `size_of` gives for its width and height; None for a
        file that is no picture.

        Raises:
            DatasetError: its mask cannot be used.
            OSError: the folder cannot be written.
        """
        opened = opened_upright(path)
        if opened is None:
            return None
        size = size_of(opened.width, opened.height)
        latents, time_ids = self._encoded(path, opened, size)
        weights = self._masks.take(path, opened.size, size) if self._masks else None
        return TrainingPicture(latents=latents, time_ids=time_ids, caption=caption, weights=weights)

    def _encoded(self, path: Path, opened: Image.Image, size: tuple[int, int]) -> tuple[Tensor, tuple[int, ...]]:
        """The latents of a picture in a size, and its micro-condition."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = hashlib.sha256(json.dumps([_VERSION, self._weights, digest, size]).encode()).hexdigest()
        place = self._folder / f"{key}.pt"
        if place.exists():
            kept = torch.load(place, weights_only=True)
            return kept["latents"], tuple(kept["time_ids"])
        array, time_ids = cut(opened, *size)
        (latents,) = encoded(self._vae, [array], size)
        self._folder.mkdir(parents=True, exist_ok=True)
        save_whole({"latents": latents, "time_ids": list(time_ids)}, place)
        return latents, time_ids


def stacked_latents(pictures: Sequence[TrainingPicture]) -> Tensor:
    """The latents of a batch, `(B, 4, h, w)`, in float32."""
    return torch.stack([each.latents for each in pictures]).float()


def stacked_weights(pictures: Sequence[TrainingPicture]) -> Tensor | None:
    """How much each latent of a batch counts, `(B, 1, h, w)`; None where all of all pictures count alike."""
    if all(each.weights is None for each in pictures):
        return None
    rows = (torch.ones_like(each.latents[:1]) if each.weights is None else each.weights for each in pictures)
    return torch.stack([row.float() for row in rows])


def gather_pictures(
    store: LatentStore,
    items: Sequence[tuple[Path, str]],
    size_of: Callable[[int, int], tuple[int, int]],
    check: Callable[[], None],
    tell: Callable[[int, int], None],
) -> list[TrainingPicture]:
    """Every picture that can be opened, in order; `check` is called before each, `tell` after with how many are done.

    Raises:
        DatasetError: there is none, or a mask cannot be used.
    """
    pictures = []
    for index, (path, caption) in enumerate(items, start=1):
        check()
        if picture := store.take(path, size_of, caption):
            pictures.append(picture)
        tell(index, len(items))
    if not pictures:
        raise DatasetError("None of the pictures can be opened.", "Use PNG, JPEG or WebP files that are whole.")
    return pictures
