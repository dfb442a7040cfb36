"""What a UNet is told of captions while an adapter is trained."""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from engines.conditioning import Conditioning, PromptCache, joined, read_prompt
from engines.training.saving import save_whole

_IN_MEMORY = 1024
"""Texts: 236 MB with SD 1.5."""


class KeptTexts:
    """Text encoders that stay as they are: each text is read once, and kept on disk under its words and theirs.
    `weights` names the checkpoint."""

    def __init__(self, pipeline: Any, folder: Path, weights: str) -> None:
        self._pipeline = pipeline
        self._folder = folder
        self._weights = weights
        self._cache = PromptCache(_IN_MEMORY, self._from_disk)

    @torch.no_grad()
    def read(self, texts: Sequence[str], *, is_negative: bool = False) -> Conditioning:
        """What the UNet is told of `texts`, together."""
        return joined([self._cache.read(self._pipeline, text, is_negative=is_negative) for text in texts])

    def _from_disk(self, pipeline: Any, text: str, is_negative: bool, clip_skip: int) -> Conditioning:
        assert clip_skip == 1, "adapters are taught with all layers of a text encoder"
        name = hashlib.sha256(f"{self._weights}\0{is_negative}\0{text}".encode()).hexdigest()
        place = self._folder / f"{name}.pt"
        device, dtype = pipeline.unet.device, pipeline.unet.dtype
        if place.exists():
            kept = torch.load(place, weights_only=True, map_location=device)
            return Conditioning(embeds=kept["embeds"].to(dtype), pooled=kept["pooled"])
        made = read_prompt(pipeline, text, is_negative)
        self._folder.mkdir(parents=True, exist_ok=True)
        save_whole({"embeds": made.embeds, "pooled": made.pooled}, place)
        return made


class TextsReadAnew:
    """Text encoders that learn, or are small: everything is read anew, with gradients where there are any."""

    def __init__(self, pipeline: Any, dtype: torch.dtype) -> None:
        self._pipeline = pipeline
        self._dtype = dtype

    def read(self, texts: Sequence[str], *, is_negative: bool = False) -> Conditioning:
        """See `KeptTexts.read`."""
        device = self._pipeline.unet.device.type
        is_mixed = self._dtype != torch.float32
        with torch.autocast(device, self._dtype) if is_mixed else nullcontext():
            return read_prompt(self._pipeline, texts[0] if len(texts) == 1 else list(texts), is_negative)


Texts = KeptTexts | TextsReadAnew
