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

    def question(self, clean: Tensor, generator: torch.Generator, weights: Tensor | None = None) -> "Question":
        """Latents `clean` `(B, 4, h, w)` noised at timesteps that cover the schedule; all by `generator`. `weights`
        `(B, 1, h, w)` say how much each place counts; without, all count alike."""
        noise = torch.randn(clean.shape, generator=generator)
        if self.noise_offset:
            noise = noise + self.noise_offset * torch.randn(*clean.shape[:2], 1, 1, generator=generator)
        timesteps = spread_indices(len(self.schedule), len(clean), generator).to(clean.device)
        noise = noise.to(clean.device)
        return Question(
            noisy=self.schedule.noised(clean, noise, timesteps),
            timesteps=timesteps,
            wanted=self.target(clean, noise, timesteps),
            weights=None if weights is None else weights.to(clean.device),
        )

    def loss(self, said: Tensor, question: "Question") -> Tensor:
        """The mean squared error of what is `said` to a question, weighted."""
        return self._weighted(_squared(said, question.wanted, question.weights), question.timesteps)

    def preservation(self, said: Tensor, before: Tensor, question: "Question") -> Tensor:
        """How far what is `said` is from what was said `before`, weighted like an error."""
        return self._weighted(_squared(said, before), question.timesteps)

    def _weighted(self, errors: Tensor, timesteps: Tensor) -> Tensor:
        if not self.snr_gamma:
            return errors.mean()
        weights = self.schedule.snr_weights(self.prediction_type, self.snr_gamma).to(errors.device)
        return (errors * weights[timesteps]).mean()

    def errors(
        self, predict: Predict, clean: Tensor, noise: Tensor, timesteps: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """The mean squared error of each sample, `(B,)`, in float32, with all noise levels alike."""
        noisy = self.schedule.noised(clean, noise, timesteps)
        wanted = self.target(clean, noise, timesteps)
        return _squared(predict(noisy, timesteps), wanted, weights)

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """ε, or v = α·ε - σ·x₀ (Salimans & Ho, 2022, arXiv:2202.00512), or x₀."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return clean
        alpha, sigma = self.schedule.alpha_sigma(timesteps, clean)
        return alpha * noise - sigma * clean


@dataclass(frozen=True, kw_only=True)
class Question:
    """Noisy latents `(B, 4, h, w)`, their timesteps `(B,)`, what is to be said of them, and how much each place counts
    `(B, 1, h, w)`: None where all count alike."""

    noisy: Tensor
    timesteps: Tensor
    wanted: Tensor
    weights: Tensor | None = None

    @property
    def asked(self) -> tuple[Tensor, Tensor]:
        """As a UNet takes it."""
        return self.noisy, self.timesteps

    def part(self, share: slice) -> "Question":
        """Some samples of it."""
        weights = None if self.weights is None else self.weights[share]
        return Question(
            noisy=self.noisy[share], timesteps=self.timesteps[share], wanted=self.wanted[share], weights=weights
        )


def _squared(said: Tensor, wanted: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean squared error of each sample, `(B,)`, in float32. With `weights` it is a weighted mean: a sample of
    which little counts weighs as much as one of which all does."""
    errors = (said.float() - wanted).square()
    if weights is None:
        return errors.flatten(1).mean(dim=1)
    weights = weights.expand_as(errors).flatten(1)
    return (errors.flatten(1) * weights).sum(dim=1) / weights.sum(dim=1)
