"""The loss on pictures that are not learnt from, with noise and timesteps that are the same every time."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engines.training.latents import TrainingPicture, stacked_weights
from engines.training.objective import Denoising
from engines.training.unet import Denoiser, Told

LEVELS = 8
"""Noise levels that each picture is asked at, in the middle of as many equal parts of the schedule."""
_SEED = 20_261_128


class Validation:
    """Pictures held out, each asked at `at_once` noise levels together; `told` says what a UNet is told of captions and
    micro-conditions."""

    def __init__(
        self,
        objective: Denoising,
        denoiser: Denoiser,
        pictures: Sequence[TrainingPicture],
        told: Callable[[Sequence[str], Sequence[tuple[int, ...]]], Told],
        at_once: int = LEVELS,
    ) -> None:
        self._objective = objective
        self._denoiser = denoiser
        self._pictures = pictures
        self._told = told
        self._at_once = at_once

    @torch.no_grad()
    def loss(self) -> float:
        """The mean squared error over pictures, of what masks show, and noise levels, all alike."""
        return float(torch.stack([self._of(index, each) for index, each in enumerate(self._pictures)]).mean())

    def _of(self, index: int, picture: TrainingPicture) -> Tensor:
        clean = picture.latents.float().expand(LEVELS, *picture.latents.shape)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(_SEED + index))
        total = len(self._objective.schedule)
        timesteps = (torch.arange(LEVELS) + 0.5).mul(total / LEVELS).long()
        parts = zip(*(tensor.split(self._at_once) for tensor in (clean, noise, timesteps)), strict=True)
        return torch.cat([self._errors(picture, *part) for part in parts]).mean()

    def _errors(self, picture: TrainingPicture, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """At some of the levels, `(B,)`."""
        told = self._told([picture.caption] * len(clean), [picture.time_ids] * len(clean))
        weights, device = stacked_weights([picture]), self._denoiser.unet.device
        return self._objective.errors(
            lambda noisy, at: self._denoiser.predict(noisy, at, told),
            clean.to(device),
            noise.to(device),
            timesteps.to(device),
            None if weights is None else weights.to(device),
        )
