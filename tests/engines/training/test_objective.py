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
    asked = objective(prediction_type).question(CLEAN, torch.Generator().manual_seed(3))
    expected = SCHEDULE.snr_weights(prediction_type, 5.0)[asked.timesteps].mean()
    torch.testing.assert_close(objective(prediction_type).loss(asked.wanted + 1, asked), expected)
    zeros = torch.zeros_like(CLEAN)
    torch.testing.assert_close(objective(prediction_type).preservation(zeros + 1, zeros, asked), expected)
    assert float(objective(prediction_type, snr_gamma=0.0).loss(asked.wanted + 1, asked)) == pytest.approx(1.0)


def test_offset_noise_moves_whole_channels() -> None:
    noises = [
        objective("epsilon", noise_offset=offset).question(CLEAN, torch.Generator().manual_seed(4)).wanted
        for offset in (0.0, 1.0)
    ]
    moved = (noises[1] - noises[0]).flatten(2)
    assert moved.std(dim=2).max() < 1e-3 and moved.mean(dim=2).std() > 0.5


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_what_is_wanted_gives_the_picture_back_and_the_timesteps_cover_the_schedule(
    prediction_type: PredictionType,
) -> None:
    asked = objective(prediction_type).question(CLEAN, torch.Generator().manual_seed(5))
    clean = SCHEDULE.clean_from(*asked.asked[:1], asked.wanted, asked.timesteps, prediction_type)
    torch.testing.assert_close(clean, CLEAN, atol=1e-3, rtol=1e-3)
    assert sorted(int(each) * 6 // 1000 for each in asked.timesteps) == [0, 1, 2, 3, 4, 5]
    assert objective(prediction_type).loss(asked.wanted, asked) == 0
