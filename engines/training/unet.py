"""A checkpoint's UNet as trainings call it, and what it is told."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from engines.conditioning import Conditioning
from studio.domain.catalogue import PredictionType


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a UNet is told of a batch: its prompts, what stands for no prompt, and SDXL's micro-conditions `(B, 6)`."""

    prompt: Conditioning
    negative: Conditioning
    time_ids: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """A UNet with whatever changes it at the moment. `dtype`: what its matrix products compute in."""

    unet: UNet2DConditionModel
    prediction_type: PredictionType
    dtype: torch.dtype = torch.float32

    def predict(self, noisy: Tensor, timesteps: Tensor, told: Told) -> Tensor:
        """Its prediction for the prompts."""
        return self._call(noisy, timesteps, told.prompt, told.time_ids)

    def guided(self, noisy: Tensor, timesteps: Tensor, told: Told, guidance: Tensor) -> Tensor:
        """u + guidance · (c - u), `guidance` `(B,)` as pipelines count. Both halves in one call."""
        both = _joined(told.negative, told.prompt)
        time_ids = None if told.time_ids is None else told.time_ids.repeat(2, 1)
        output = self._call(noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), both, time_ids)
        plain, prompted = output.float().chunk(2)
        return plain + guidance.view(-1, 1, 1, 1) * (prompted - plain)

    def _call(self, noisy: Tensor, timesteps: Tensor, told: Conditioning, time_ids: Tensor | None) -> Tensor:
        added = None if told.pooled is None else {"text_embeds": told.pooled, "time_ids": time_ids}
        with self._autocast():
            return self.unet(noisy, timesteps, told.embeds, added_cond_kwargs=added).sample

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.unet.device.type, self.dtype, enabled=self.dtype != torch.float32)


def told_of(prompt: Conditioning, time_ids: Sequence[tuple[int, ...]], *, is_sdxl: bool) -> Told:
    """What a UNet is told of prompts where nothing is guided; `time_ids`, one of each, count for SDXL alone."""
    rows = torch.tensor(time_ids, dtype=torch.float32, device=prompt.embeds.device) if is_sdxl else None
    return Told(prompt=prompt, negative=prompt, time_ids=rows)


def whole_picture(size: int, count: int, is_sdxl: bool) -> Tensor | None:
    """SDXL's micro-conditions `(B, 6)` of `count` pictures that are neither cut nor enlarged; None for other
    families."""
    return torch.tensor([[size, size, 0, 0, size, size]] * count, dtype=torch.float32) if is_sdxl else None


def _joined(first: Conditioning, second: Conditioning) -> Conditioning:
    """One after the other; `first` may be a single one for all of `second`."""
    count = len(second.embeds)
    joined = replace(second, embeds=torch.cat([first.embeds.expand(count, -1, -1), second.embeds]))
    if first.pooled is None or second.pooled is None:
        return joined
    return replace(joined, pooled=torch.cat([first.pooled.expand(count, -1), second.pooled]))
