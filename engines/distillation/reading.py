"""What a checkpoint's UNet is told of captions, in batches."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engines.conditioning import Conditioning, PromptCache, joined
from engines.training.unet import Told

_KEPT = 1024
"""Captions whose conditioning is kept: 236 MB with SD 1.5."""


class CaptionReader:
    """Reads captions with the text encoders of `pipeline`, whose weights must stay as they are."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._cache = PromptCache(_KEPT)
        self._negative: Conditioning | None = None

    @torch.no_grad()
    def told(self, captions: Sequence[str], time_ids: Tensor | None) -> Told:
        """What the UNet is told of them, and what stands for no prompt; `time_ids` `(B, 6)` for SDXL."""
        if self._negative is None:
            self._negative = self._cache.read(self._pipeline, "", is_negative=True)
        read = [self._cache.read(self._pipeline, caption) for caption in captions]
        prompt = joined(read)
        device = prompt.embeds.device
        return Told(prompt=prompt, negative=self._negative, time_ids=None if time_ids is None else time_ids.to(device))
