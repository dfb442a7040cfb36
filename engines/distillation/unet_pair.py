"""A UNet as student and teacher in one: with its adapter on, and with it off."""

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.training.lora import TrainableLora
from engines.training.unet import Denoiser, Told


@dataclass(frozen=True, kw_only=True)
class UnetPair(Denoiser):
    """`objectives.Pair` of a UNet."""

    lora: TrainableLora

    def student(self, noisy: Tensor, timesteps: Tensor, told: Told) -> Tensor:
        """See `objectives.Pair.student`."""
        return self.predict(noisy, timesteps, told)

    @torch.no_grad()
    def teacher(self, noisy: Tensor, timesteps: Tensor, told: Told, guidance: Tensor) -> Tensor:
        """See `objectives.Pair.teacher`."""
        with self.lora.off():
            return self.guided(noisy, timesteps, told, guidance)

    def features(self, noisy: Tensor, timesteps: Tensor, told: Told) -> Tensor:
        """What the teacher's middle block makes of `noisy`, `(B, C, h, w)`; differentiable in `noisy`."""
        kept: list[Tensor] = []

        def keep(_: object, inputs: object, output: Tensor) -> None:
            kept.append(output)
            raise _Seen  # the way up is of no use here

        handle = self.unet.mid_block.register_forward_hook(keep)
        try:
            with self.lora.off(), suppress(_Seen):
                self.predict(noisy, timesteps, told)
        finally:
            handle.remove()
        return kept[0]


class _Seen(Exception):
    """Ends a call of the UNet in its middle."""
