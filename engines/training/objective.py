"""What a LoRA learns: to say what was added to a noised picture (Ho et al., 2020, arXiv:2006.11239)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.training.diffusion import NoiseSchedule, spread_indices
from studio.domain.catalogue import PredictionType

Predict = Callable[[Tensor, Tensor], Tensor]
"""What a UNet says of noisy latents `(B, 4, h, w)` at timesteps `(B,)`."""


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """The objective of ordinary training. `snr_gamma` weighs noise levels evenly (0: not), `noise_offset` shifts whole
    channels of the noise, so that overall brightness is learnt, too (Guttenberg, 2023)."""

    schedule: NoiseSchedule
    prediction_type: PredictionType
    snr_gamma: float = 5.0
    noise_offset: float = 0.0

    def loss(self, predict: Predict, clean: Tensor, generator: torch.Generator) -> Tensor:
        """The mean squared error for latents `clean` `(B, 4, h, w)`, weighted; noise and timesteps by `generator`."""
        noise, timesteps = self._drawn(clean, generator)
        return self._weighted(self.errors(predict, clean, noise, timesteps), timesteps)

    def preservation(self, difference: Predict, clean: Tensor, generator: torch.Generator) -> Tensor:
        """The mean square of a `difference` between two predictions, weighted like the error."""
        noise, timesteps = self._drawn(clean, generator)
        apart = difference(self.schedule.noised(clean, noise, timesteps), timesteps)
        return self._weighted(apart.square().flatten(1).mean(dim=1), timesteps)

    def _drawn(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(clean.shape, generator=generator)
        if self.noise_offset:
            noise = noise + self.noise_offset * torch.randn(*clean.shape[:2], 1, 1, generator=generator)
        timesteps = spread_indices(len(self.schedule), len(clean), generator)
        return noise.to(clean.device), timesteps.to(clean.device)

    def _weighted(self, errors: Tensor, timesteps: Tensor) -> Tensor:
        if not self.snr_gamma:
            return errors.mean()
        weights = self.schedule.snr_weights(self.prediction_type, self.snr_gamma).to(errors.device)
        return (errors * weights[timesteps]).mean()

    def errors(self, predict: Predict, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The mean squared error of each sample, `(B,)`, unweighted and in float32."""
        noisy = self.schedule.noised(clean, noise, timesteps)
        wanted = self.target(clean, noise, timesteps)
        return (predict(noisy, timesteps).float() - wanted).square().flatten(1).mean(dim=1)

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """ε, or v = α·ε - σ·x₀ (Salimans & Ho, 2022, arXiv:2202.00512), or x₀."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return clean
        alpha, sigma = self.schedule.alpha_sigma(timesteps, clean)
        return alpha * noise - sigma * clean
