"""The x₀ estimate is exact when the model output is."""

import pytest
import torch

from engines.pocket.build.denoiser import training_scheduler
from engines.previews import DenoisedWatch
from engines.schedulers import build_scheduler
from studio.domain.catalogue import Catalogue

EXACT = ("dpmpp_2m_karras", "dpmpp_2m", "unipc", "euler", "euler_a", "ddim", "ddpm", "lcm")


@pytest.mark.parametrize("scheduler_id", EXACT)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_perfect_model_shows_the_clean_latents_at_every_step(
    catalogue: Catalogue, scheduler_id: str, prediction_type: str
) -> None:
    config = training_scheduler().config
    scheduler = build_scheduler(catalogue.scheduler(scheduler_id), config, prediction_type)
    scheduler.set_timesteps(6)
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(1, 4, 4, 4, generator=generator)
    noise = torch.randn(1, 4, 4, 4, generator=generator)
    watch = DenoisedWatch(scheduler)
    for timestep in scheduler.timesteps:
        sample = scheduler.add_noise(clean, noise, timestep[None])
        alpha, sigma = _alpha_sigma(scheduler, timestep)
        output = noise if prediction_type == "epsilon" else alpha * noise - sigma * clean
        scheduler.step(output, timestep, sample)
        denoised = watch.denoised()
        assert denoised is not None
        assert torch.allclose(denoised, clean, atol=2e-2)


def _alpha_sigma(scheduler: object, timestep: torch.Tensor) -> tuple[float, float]:
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None:
        index = (scheduler.timesteps == timestep).nonzero()[0].item()
        ratio = float(sigmas[index])
        alpha = (1 + ratio**2) ** -0.5
    else:
        alpha = float(scheduler.alphas_cumprod[int(timestep)]) ** 0.5
    return alpha, (1 - alpha**2) ** 0.5
