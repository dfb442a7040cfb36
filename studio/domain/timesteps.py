"""At which timesteps few-step models are asked: whole numbers only, so that whoever plans can know them too."""

from typing import Literal

Grid = Literal["lcm", "trailing"]
"""`lcm`: on the 50 points that consistency distillation trains. `trailing`: in equal parts from the last timestep, as
Flash Diffusion trains."""

TRAIN_STEPS = 1000
LCM_STEPS = 50
"""Points of the solver that consistency distillation follows: 19, 39, …, 999 (Luo et al., 2023, arXiv:2310.04378)."""


def timesteps_on(grid: Grid, steps: int) -> tuple[int, ...]:
    """`steps` timesteps, falling. Four are 999, 759, 499, 259 on the one grid and 999, 749, 499, 249 on the other."""
    return lcm_timesteps(steps) if grid == "lcm" else trailing_timesteps(steps)


def lcm_grid() -> tuple[int, ...]:
    """The solver's timesteps in rising order."""
    skipped = TRAIN_STEPS // LCM_STEPS
    return tuple(index * skipped - 1 for index in range(1, LCM_STEPS + 1))


def lcm_timesteps(steps: int) -> tuple[int, ...]:
    """As diffusers' LCMScheduler chooses them, `steps` of at most 50."""
    grid = lcm_grid()
    return tuple(grid[-1 - index * LCM_STEPS // steps] for index in range(steps))


def trailing_timesteps(steps: int) -> tuple[int, ...]:
    """As `timestep_spacing="trailing"` chooses them."""
    return tuple(round(TRAIN_STEPS - index * TRAIN_STEPS / steps) - 1 for index in range(steps))
