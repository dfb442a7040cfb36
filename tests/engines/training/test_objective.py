"""What a LoRA is asked, against diffusers: noise, targets, weights."""

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from engines.training.diffusion import NoiseSchedule
from engines.training.objective import Denoising
from studio.domain.catalogue import PredictionType

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
SCHEDULE = NoiseSchedule.of(SCHEDULER.config)
CLEAN = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(1))
TIMES = torch.tensor([0, 19, 250, 500, 750, 999])


def objective(prediction_type: PredictionType, **changes: float) -> Denoising:
    return Denoising(schedule=SCHEDULE, prediction_type=prediction_type, **changes)


def test_targets_and_noised_pictures_are_those_of_diffusers() -> None:
    torch.testing.assert_close(objective("epsilon").target(CLEAN, NOISE, TIMES), NOISE)
    velocity = SCHEDULER.get_velocity(CLEAN, NOISE, TIMES)
    torch.testing.assert_close(objective("v_prediction").target(CLEAN, NOISE, TIMES), velocity, atol=1e-5, rtol=1e-5)
    seen: list[Tensor] = []

    def predict(noisy: Tensor, at: Tensor) -> Tensor:
        seen.append(noisy)
        return torch.zeros_like(noisy)

    errors = objective("epsilon").errors(predict, CLEAN, NOISE, TIMES)
    torch.testing.assert_close(seen[0], SCHEDULER.add_noise(CLEAN, NOISE, TIMES), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(errors, NOISE.square().flatten(1).mean(dim=1))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noise_levels_are_weighed_as_in_the_examples_of_diffusers(prediction_type: PredictionType) -> None:
    snr = compute_snr(SCHEDULER, TIMES)
    divisor = snr + 1 if prediction_type == "v_prediction" else snr
    expected = torch.stack([snr, 5.0 * torch.ones_like(snr)], dim=1).min(dim=1)[0] / divisor
    weights = SCHEDULE.snr_weights(prediction_type, 5.0)[TIMES]
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-4)
    told: list[Tensor] = []

    def wrong_by_one(noisy: Tensor, at: Tensor) -> Tensor:
        told.append(at)
        return torch.ones_like(noisy)

    generator = torch.Generator().manual_seed(3)
    loss = objective(prediction_type, snr_gamma=5.0).preservation(wrong_by_one, CLEAN, generator)
    torch.testing.assert_close(loss, SCHEDULE.snr_weights(prediction_type, 5.0)[told[0]].mean())


def test_offset_noise_moves_whole_channels() -> None:
    noises: list[Tensor] = []

    def keep(noisy: Tensor, at: Tensor) -> Tensor:
        alpha, sigma = SCHEDULE.alpha_sigma(at, noisy)
        noises.append((noisy - alpha * CLEAN) / sigma)
        return torch.zeros_like(noisy)

    for offset in (0.0, 1.0):
        objective("epsilon", noise_offset=offset).loss(keep, CLEAN, torch.Generator().manual_seed(4))
    moved = (noises[1] - noises[0]).flatten(2)
    assert moved.std(dim=2).max() < 1e-3 and moved.mean(dim=2).std() > 0.5


def test_the_right_answer_has_no_loss_and_the_timesteps_cover_the_schedule() -> None:
    times: list[Tensor] = []

    def right(noisy: Tensor, at: Tensor) -> Tensor:
        times.append(at)
        alpha, sigma = SCHEDULE.alpha_sigma(at, noisy)
        return (noisy - alpha * CLEAN) / sigma

    loss = objective("epsilon").loss(right, CLEAN, torch.Generator().manual_seed(5))
    assert loss < 1e-6
    assert sorted(int(each) * 6 // 1000 for each in times[0]) == [0, 1, 2, 3, 4, 5]
