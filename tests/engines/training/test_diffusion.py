"""The algebra of diffusion, against diffusers' own."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from engines.training.diffusion import NoiseSchedule, spread_indices
from studio.domain.catalogue import PredictionType

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
SCHEDULE = NoiseSchedule.of(CONFIG)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_targets_are_those_of_diffusers_and_lead_back(kind: PredictionType) -> None:
    clean, noise = torch.randn(2, 5, 4, 3, 3, generator=torch.Generator().manual_seed(6))
    timesteps = torch.tensor([10, 50, 400, 800, 999])
    scheduler = DDPMScheduler.from_config(CONFIG)
    noisy = SCHEDULE.noised(clean, noise, timesteps)
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, timesteps))
    output = SCHEDULE.target(noisy, clean, timesteps, kind)
    expected = {"epsilon": noise, "v_prediction": scheduler.get_velocity(clean, noise, timesteps), "sample": clean}
    torch.testing.assert_close(output, expected[kind], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(SCHEDULE.clean_from(noisy, output, timesteps, kind), clean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(SCHEDULE.noise_from(noisy, output, timesteps, kind), noise, atol=1e-4, rtol=1e-4)


def test_snr_weights_are_those_of_diffusers() -> None:
    timesteps = torch.tensor([0, 10, 250, 500, 999])
    snr = compute_snr(DDPMScheduler.from_config(CONFIG), timesteps)
    assert torch.allclose(SCHEDULE.snr_weights("epsilon")[timesteps], snr.clamp(max=5) / snr)
    assert torch.allclose(SCHEDULE.snr_weights("v_prediction")[timesteps], snr.clamp(max=5) / (snr + 1))
    assert torch.allclose(SCHEDULE.snr_weights("sample")[timesteps], snr.clamp(max=5))
    assert SCHEDULE.snr_weights("sample", floor=0.2).min() == pytest.approx(0.2)


def test_spread_indices_cover_everything_evenly() -> None:
    drawn = torch.cat([spread_indices(1000, 32, torch.Generator().manual_seed(seed)) for seed in range(400)])
    assert drawn.min() == 0
    assert drawn.max() == 999
    counts = np.histogram(drawn.numpy(), bins=10, range=(0, 1000))[0]
    assert np.ptp(counts) < 0.05 * counts.mean()
