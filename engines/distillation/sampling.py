"""Pictures by a student, in a few answers."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from engines.distillation.objectives import Pair, answer, walk
from engines.training.diffusion import NoiseSchedule
from engines.training.solver import all_at

_Told = TypeVar("_Told")


@torch.no_grad()
def draw_few(
    pair: Pair[_Told],
    schedule: NoiseSchedule,
    noise: Tensor,
    timesteps: Sequence[int],
    told: _Told,
    generator: torch.Generator,
) -> Tensor:
    """x₀ from `noise` at the falling `timesteps`, as diffusers' LCMScheduler goes."""
    noisy = walk(pair, schedule, noise, timesteps, told, generator)
    return answer(pair, schedule, noisy, all_at(timesteps[-1], noise), told)
