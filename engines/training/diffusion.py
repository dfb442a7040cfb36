"""The algebra of noising: x = α·x₀ + σ·ε with α = √ᾱ and σ = √(1 - ᾱ) (Ho et al., 2020, arXiv:2006.11239).

Everything is float32: at t = 999 an error in ε counts fourteen times in x₀.
"""

from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from studio.domain.catalogue import PredictionType


class NoiseSchedule:
    """ᾱ of every timestep of a checkpoint, `(T,)`. Samples may have any shape `(B, …)`, timesteps are `(B,)`."""

    def __init__(self, alphas_cumprod: Tensor) -> None:
        self.alphas_cumprod = alphas_cumprod.float()

    @classmethod
    def of(cls, scheduler_config: Any) -> "NoiseSchedule":
        """That of a diffusers scheduler's `config`."""
        return cls(DDPMScheduler.from_config(scheduler_config).alphas_cumprod)

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def alpha_sigma(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """α and σ, each `(B, 1, …)` with as many axes as `like`."""
        squared = self.alphas_cumprod.to(like.device)[timesteps].view(-1, *(1,) * (like.ndim - 1))
        return squared.sqrt(), (1 - squared).sqrt()

    def noised(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x: `clean` with as much `noise` as there is at `timesteps`."""
        alpha, sigma = self.alpha_sigma(timesteps, clean)
        return alpha * clean + sigma * noise

    def clean_from(self, noisy: Tensor, output: Tensor, timesteps: Tensor, prediction_type: PredictionType) -> Tensor:
        """x₀ as a network's `output` for `noisy` means it."""
        alpha, sigma = self.alpha_sigma(timesteps, noisy)
        if prediction_type == "v_prediction":  # v = α·ε - σ·x₀ (Salimans & Ho, 2022, arXiv:2202.00512)
            return alpha * noisy - sigma * output
        return output if prediction_type == "sample" else (noisy - sigma * output) / alpha

    def noise_from(self, noisy: Tensor, output: Tensor, timesteps: Tensor, prediction_type: PredictionType) -> Tensor:
        """ε as a network's `output` for `noisy` means it."""
        alpha, sigma = self.alpha_sigma(timesteps, noisy)
        if prediction_type == "v_prediction":
            return alpha * output + sigma * noisy
        return output if prediction_type == "epsilon" else (noisy - alpha * output) / sigma

    def target(self, noisy: Tensor, clean: Tensor, timesteps: Tensor, prediction_type: PredictionType) -> Tensor:
        """What a network should say of `noisy`, so that `clean_from` gives `clean` back."""
        alpha, sigma = self.alpha_sigma(timesteps, noisy)
        if prediction_type == "v_prediction":
            return (alpha * noisy - clean) / sigma
        return clean if prediction_type == "sample" else (noisy - alpha * clean) / sigma

    def snr_weights(self, prediction_type: PredictionType, gamma: float = 5.0, floor: float = 0.0) -> Tensor:
        """Weight of a loss at each timestep, `(T,)`, so that an error in x₀ weighs min(max(SNR, floor), γ): that over
        SNR for ε, over SNR + 1 for v. Without the floor it is min-SNR-γ (Hang et al., 2023, arXiv:2303.09556)."""
        snr = self.alphas_cumprod / (1 - self.alphas_cumprod)
        per_output = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
        return snr.clamp(min=floor, max=gamma) / per_output[prediction_type]


def spread_indices(high: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` random whole numbers below `high`, one from each of as many equal parts of the range, in rising order:
    uniform together, and with less variance than drawn apart."""
    offsets = torch.rand(count, generator=generator)
    return ((torch.arange(count) + offsets) * (high / count)).long().clamp(max=high - 1)
