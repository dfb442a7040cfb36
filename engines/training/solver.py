"""The way from noise to a picture: DPM-Solver++ 2M in float32 (Lu et al., 2022, arXiv:2211.01095)."""

from collections.abc import Callable

import torch
from torch import Tensor

from engines.training.diffusion import NoiseSchedule
from studio.domain.catalogue import PredictionType


def solve(
    predict: Callable[[Tensor, Tensor], Tensor],
    prediction_type: PredictionType,
    schedule: NoiseSchedule,
    noisy: Tensor,
    grid: tuple[int, ...],
) -> Tensor:
    """x₀ where the way ends that leads from `noisy` `(B, …)` along the falling timesteps of `grid`, as `predict` says
    for samples and timesteps `(B,)`."""
    before: Tensor | None = None
    last_step = torch.zeros(())
    for here, there in zip(grid, (*grid[1:], None), strict=True):
        at = all_at(here, noisy)
        output = predict(noisy, at).float()
        clean = schedule.clean_from(noisy, output, at, prediction_type)
        if there is None:
            return clean
        step = _log_snr(schedule, there) - _log_snr(schedule, here)
        slope = clean if before is None else clean + (clean - before) * (step / (2 * last_step))
        alpha, sigma = schedule.alpha_sigma(all_at(there, noisy), noisy)
        _, sigma_here = schedule.alpha_sigma(at, noisy)
        noisy = sigma / sigma_here * noisy - alpha * torch.expm1(-step) * slope
        before, last_step = clean, step
    raise ValueError("the grid has no timestep")


def all_at(timestep: int, like: Tensor) -> Tensor:
    """`timestep` for each of the samples `like`, `(B,)`."""
    return torch.full((len(like),), timestep, device=like.device)


def _log_snr(schedule: NoiseSchedule, timestep: int) -> Tensor:
    """λ = log(α / σ)."""
    squared = schedule.alphas_cumprod[timestep]
    return 0.5 * (squared / (1 - squared)).log()
