"""Two points on a line, noised: distillation tried where its answer is known, as the score can be written down."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from engines.training.diffusion import NoiseSchedule
from studio.domain.catalogue import PredictionType

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
SCHEDULE = NoiseSchedule.of(CONFIG)
SPREAD = 0.05


class Residual(nn.Module):
    """A small network on x and t that begins as nothing: what an adapter is to a UNet."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        alpha, sigma = SCHEDULE.alpha_sigma(timesteps, noisy)
        time = timesteps.float().view(-1, 1) / 1000
        inputs = (noisy, alpha, sigma, time, alpha * noisy / sigma.square().clamp_min(0.05), torch.tanh(4 * noisy))
        return self.layers(torch.cat(inputs, dim=1))


@dataclass
class TwoPoints:
    """The exact prediction for ½·N(-1, 0.05²) + ½·N(1, 0.05²), and a student that may differ from it."""

    prediction_type: PredictionType = "epsilon"
    residual: Residual = field(default_factory=Residual)

    def exact(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        alpha, sigma = SCHEDULE.alpha_sigma(timesteps, noisy)
        variance = (alpha * SPREAD).square() + sigma.square()
        score = (alpha * torch.tanh(alpha * noisy / variance) - noisy) / variance
        clean = (noisy + sigma.square() * score) / alpha
        return SCHEDULE.target(noisy, clean, timesteps, self.prediction_type)

    def student(self, noisy: Tensor, timesteps: Tensor, told: None) -> Tensor:
        return self.exact(noisy, timesteps) + self.residual(noisy, timesteps)

    def teacher(self, noisy: Tensor, timesteps: Tensor, told: None, guidance: Tensor) -> Tensor:
        return self.exact(noisy, timesteps)


def points(count: int, generator: torch.Generator) -> Tensor:
    signs = torch.randint(2, (count, 1), generator=generator) * 2.0 - 1
    return signs + SPREAD * torch.randn(count, 1, generator=generator)
