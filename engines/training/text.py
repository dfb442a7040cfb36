"""What a UNet is told of captions while an adapter is trained."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engines.conditioning import Conditioning, read_prompt
from engines.training.saving import save_whole

_IN_MEMORY = 1024
"""Texts: 236 MB with SD 1.5."""


class FixedTexts:
    """Text encoders that stay as they are: each text is read once, and kept on disk under its words and theirs.
    `weights` names the checkpoint."""

    def __init__(self, pipeline: Any, folder: Path, weights: str) -> None:
        self._pipeline = pipeline
        self._folder = folder
        self._weights = weights
        self._kept: OrderedDict[tuple[str, bool], Conditioning] = OrderedDict()

    def read(self, texts: Sequence[str], *, is_negative: bool = False) -> Conditioning:
        """What the UNet is told of `texts`, together."""
        return joined([self._one(text, is_negative) for text in texts])

    @torch.no_grad()
    def _one(self, text: str, is_negative: bool) -> Conditioning:
        key = (text, is_negative)
        if key not in self._kept:
            self._kept[key] = self._from_disk(text, is_negative)
            if len(self._kept) > _IN_MEMORY:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _from_disk(self, text: str, is_negative: bool) -> Conditioning:
        name = hashlib.sha256(f"{self._weights}\0{is_negative}\0{text}".encode()).hexdigest()
        place = self._folder / f"{name}.pt"
        device, dtype = self._pipeline.unet.device, self._pipeline.unet.dtype
        if place.exists():
            kept = torch.load(place, weights_only=True, map_location=device)
            return Conditioning(embeds=kept["embeds"].to(dtype), pooled=kept["pooled"])
        made = read_prompt(self._pipeline, text, is_negative)
        self._folder.mkdir(parents=True, exist_ok=True)
        save_whole({"embeds": made.embeds, "pooled": made.pooled}, place)
        return made


class LearningTexts:
    """Text encoders that learn: everything is read anew, with gradients where there are any."""

    def __init__(self, pipeline: Any, dtype: torch.dtype) -> None:
        self._pipeline = pipeline
        self._dtype = dtype

    def read(self, texts: Sequence[str], *, is_negative: bool = False) -> Conditioning:
        """See `FixedTexts.read`."""
        device = self._pipeline.unet.device.type
        is_mixed = self._dtype != torch.float32
        with torch.autocast(device, self._dtype) if is_mixed else nullcontext():
            return read_prompt(self._pipeline, texts[0] if len(texts) == 1 else list(texts), is_negative)


Texts = FixedTexts | LearningTexts


def joined(read: Sequence[Conditioning]) -> Conditioning:
    """Several texts as one batch."""
    pooled: list[Tensor] = [each.pooled for each in read if each.pooled is not None]
    return Conditioning(embeds=torch.cat([each.embeds for each in read]), pooled=torch.cat(pooled) if pooled else None)
