"""A UNet as student and teacher in one: with its adapter on, and with it off."""

from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from engines.conditioning import Conditioning
from engines.training.lora import TrainableLora
from studio.domain.catalogue import PredictionType


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a UNet is told of a batch: its prompts, what stands for no prompt, and SDXL's micro-conditions `(B, 6)`."""

    prompt: Conditioning
    negative: Conditioning
    time_ids: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class UnetPair:
    """`objectives.Pair` of a UNet. `dtype`: what its matrix products compute in."""

    unet: UNet2DConditionModel
    lora: TrainableLora
    prediction_type: PredictionType
    dtype: torch.dtype = torch.float32

    def student(self, noisy: Tensor, timesteps: Tensor, told: Told) -> Tensor:
        """See `objectives.Pair.student`."""
        return self._predict(noisy, timesteps, told.prompt, told.time_ids)

    @torch.no_grad()
    def teacher(self, noisy: Tensor, timesteps: Tensor, told: Told, guidance: Tensor) -> Tensor:
        """See `objectives.Pair.teacher`. Both halves in one call."""
        both = _joined(told.negative, told.prompt)
        time_ids = None if told.time_ids is None else told.time_ids.repeat(2, 1)
        with self.lora.off():
            output = self._predict(noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), both, time_ids)
        plain, prompted = output.float().chunk(2)
        return plain + guidance.view(-1, 1, 1, 1) * (prompted - plain)

    def features(self, noisy: Tensor, timesteps: Tensor, told: Told) -> Tensor:
        """What the teacher's middle block makes of `noisy`, `(B, C, h, w)`; differentiable in `noisy`."""
        kept: list[Tensor] = []

        def keep(_: object, inputs: object, output: Tensor) -> None:
            kept.append(output)
            raise _Seen  # the way up is of no use here

        handle = self.unet.mid_block.register_forward_hook(keep)
        try:
            with self.lora.off(), suppress(_Seen):
                self._predict(noisy, timesteps, told.prompt, told.time_ids)
        finally:
            handle.remove()
        return kept[0]

    def _predict(self, noisy: Tensor, timesteps: Tensor, told: Conditioning, time_ids: Tensor | None) -> Tensor:
        added = None if told.pooled is None else {"text_embeds": told.pooled, "time_ids": time_ids}
        with self._autocast():
            return self.unet(noisy, timesteps, told.embeds, added_cond_kwargs=added).sample

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.unet.device.type, self.dtype, enabled=self.dtype != torch.float32)


class _Seen(Exception):
    """Ends a call of the UNet in its middle."""


def _joined(first: Conditioning, second: Conditioning) -> Conditioning:
    """One after the other; `first` may be a single one for all of `second`."""
    count = len(second.embeds)
    joined = replace(second, embeds=torch.cat([first.embeds.expand(count, -1, -1), second.embeds]))
    if first.pooled is None or second.pooled is None:
        return joined
    return replace(joined, pooled=torch.cat([first.pooled.expand(count, -1), second.pooled]))
