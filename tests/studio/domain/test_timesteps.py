"""The timesteps of few-step sampling, against the samplers that will be given them."""

import pytest
from diffusers import DPMSolverMultistepScheduler, LCMScheduler

from studio.domain.timesteps import lcm_grid, lcm_timesteps, timesteps_on, trailing_timesteps


@pytest.mark.parametrize("steps", range(1, 13))
def test_lcm_timesteps_are_those_of_its_sampler_and_on_the_grid_that_is_trained(steps: int) -> None:
    scheduler = LCMScheduler()
    scheduler.set_timesteps(steps)
    assert lcm_timesteps(steps) == tuple(scheduler.timesteps.tolist()) == timesteps_on("lcm", steps)
    assert set(lcm_timesteps(steps)) <= set(lcm_grid())


@pytest.mark.parametrize("steps", range(1, 40))
def test_trailing_timesteps_are_those_of_diffusers(steps: int) -> None:
    scheduler = DPMSolverMultistepScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    assert trailing_timesteps(steps) == tuple(scheduler.timesteps.tolist()) == timesteps_on("trailing", steps)


def test_flash_is_asked_where_it_was_trained() -> None:
    assert trailing_timesteps(4) == (999, 749, 499, 249)
    assert all(set(trailing_timesteps(steps)) <= set(trailing_timesteps(16)) for steps in (1, 2, 4, 8))
