"""What a student is asked at one training step, so that it draws in few steps what its teacher draws in many.

Regressing on the teacher's guided prediction at the same timestep removes guidance and no step: the best such student
says the mean of all pictures that a noisy one may become, which is a blur. Both objectives here ask for something else
instead: an answer in x₀, the same all along one path from noise to picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from engines.training.diffusion import NoiseSchedule, spread_indices
from engines.training.solver import all_at, solve
from studio.domain.catalogue import PredictionType
from studio.domain.distillation import FEW_STEPS
from studio.domain.timesteps import Grid, lcm_grid, timesteps_on, trailing_timesteps

SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0
HUBER = 1e-3
_Told = TypeVar("_Told")
_Heard = TypeVar("_Heard", contravariant=True)


class Pair(Protocol[_Heard]):
    """A student and its teacher: one network, whose adapter is on for the one and off for the other. Noisy samples are
    `(B, …)`, timesteps `(B,)`; what a network is `told` beside them is its own matter."""

    prediction_type: PredictionType

    def student(self, noisy: Tensor, timesteps: Tensor, told: _Heard) -> Tensor:
        """The prediction with the adapter on, without guidance."""
        ...

    def teacher(self, noisy: Tensor, timesteps: Tensor, told: _Heard, guidance: Tensor) -> Tensor:
        """The guided prediction with the adapter off: u + guidance · (c - u), `guidance` `(B,)` as pipelines count."""
        ...


class Objective(Protocol[_Told]):
    """What is asked of the student at one training step."""

    def ask(self, pair: Pair[_Told], clean: Tensor, told: _Told, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The student's answer and the one that is wanted, each `(B, …)`, for samples `clean` of the data and what is
        `told` of them. The answer is differentiable in the adapter alone; what is wanted carries no gradient."""
        ...


def boundary_scalings(timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """c_skip and c_out `(B, 1, …)`: at t = 0 the answer is the sample itself, which is what consistency starts from
    (Song et al., 2023, arXiv:2303.01469; constants of Luo et al., 2023)."""
    scaled = TIMESTEP_SCALING * timesteps.float().view(-1, *(1,) * (like.ndim - 1))
    squared = scaled**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / squared, scaled / squared.sqrt()


def answer(pair: Pair[_Told], schedule: NoiseSchedule, noisy: Tensor, timesteps: Tensor, told: _Told) -> Tensor:
    """The student's x₀ for `noisy`, in float32; `noisy` itself at t = 0."""
    output = pair.student(noisy, timesteps, told).float()
    skip, out = boundary_scalings(timesteps, noisy)
    return skip * noisy + out * schedule.clean_from(noisy, output, timesteps, pair.prediction_type)


def pseudo_huber(error: Tensor) -> Tensor:
    """√(error² + c²) - c, averaged: absolute error but for the smallest ones."""
    return ((error.square() + HUBER**2).sqrt() - HUBER).mean()


@dataclass(frozen=True, kw_only=True)
class Lcm(Generic[_Told]):
    """Latent consistency distillation with an adapter (Luo et al., 2023, arXiv:2310.04378 and 2311.05556): the answer
    at one point of the solver's grid is to be the answer at the next lower one, where a guided DDIM step leads."""

    schedule: NoiseSchedule
    guidance: tuple[float, float]
    """Between these, drawn for each sample; as pipelines count."""
    grid: Tensor = field(default_factory=lambda: torch.tensor(lcm_grid()))

    def ask(self, pair: Pair[_Told], clean: Tensor, told: _Told, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `Objective.ask`."""
        index = spread_indices(len(self.grid), len(clean), generator)
        start = self.grid[index].to(clean.device)
        end = torch.where(index > 0, self.grid[index - 1], 0).to(clean.device)
        noisy = _noised(self.schedule, clean, start, int(self.grid[-1]), generator)
        with torch.no_grad():
            guidance = _guidance(self.guidance, len(clean), generator).to(clean.device)
            reached = ddim_step(pair, self.schedule, noisy, start, end, told, guidance)
            wanted = answer(pair, self.schedule, reached, end, told)  # the student's own, its adapter on
        return answer(pair, self.schedule, noisy, start, told), wanted


@torch.no_grad()
def ddim_step(
    pair: Pair[_Told],
    schedule: NoiseSchedule,
    noisy: Tensor,
    start: Tensor,
    end: Tensor,
    told: _Told,
    guidance: Tensor,
) -> Tensor:
    """Where one guided step of the teacher leads from `noisy` (Song et al., 2021, arXiv:2010.02502)."""
    output = pair.teacher(noisy, start, told, guidance).float()
    clean = schedule.clean_from(noisy, output, start, pair.prediction_type)
    noise = schedule.noise_from(noisy, output, start, pair.prediction_type)
    return schedule.noised(clean, noise, end)


FLASH_PHASES = (
    (0.0, 0.0, 0.5, 0.5),
    (0.1, 0.3, 0.3, 0.3),
    (0.25, 0.25, 0.25, 0.25),
    (0.4, 0.2, 0.2, 0.2),
)
"""How often training starts near each of the four timesteps of sampling, by quarter of the training: little noise
first, where the path is short; pure noise most often at the end (Chadebec et al., 2024, arXiv:2406.02347)."""
_SPREAD = 0.5
"""Twice the variance of the start around each of the four, in steps of the solver."""


@dataclass(frozen=True, kw_only=True)
class Flash(Generic[_Told]):
    """Flash distillation (Chadebec et al., 2024, arXiv:2406.02347), its first term: the answer is to be where the
    teacher ends that goes all the way on, guided, by DPM-Solver++ from the same noisy sample."""

    schedule: NoiseSchedule
    guidance: tuple[float, float]
    progress: float = 1.0
    """How much of the training is over, in [0, 1]: chooses the phase."""
    solver_steps: int = 16
    recall: Callable[[Callable[[], Tensor]], Tensor] = lambda compute: compute()
    """Gives the endpoint that it is handed the computation of: computes it, or knows it from before."""

    def ask(self, pair: Pair[_Told], clean: Tensor, told: _Told, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `Objective.ask`. One starting point and one guidance for the batch."""
        grid = trailing_timesteps(self.solver_steps)
        begin = int(torch.multinomial(start_shares(self.progress, self.solver_steps), 1, generator=generator))
        start = all_at(grid[begin], clean)
        noisy = _noised(self.schedule, clean, start, grid[0], generator)
        guidance = _guidance(self.guidance, 1, generator).expand(len(clean)).to(clean.device)
        wanted = self.recall(lambda: endpoint(pair, self.schedule, noisy, grid[begin:], told, guidance))
        return answer(pair, self.schedule, noisy, start, told), wanted.to(clean.device)


@dataclass(frozen=True, kw_only=True)
class OwnPath(Generic[_Told]):
    """Distillation along the student's own path (Kohler et al., 2024, arXiv:2405.05224): it draws as it will be asked
    to, in one of `counts` steps, and wherever that stops, the answer is to be where the teacher goes from there. So
    later steps learn to mend what earlier ones get wrong, which noised pictures of the data never show. Needs the shape
    of the samples, not the samples."""

    schedule: NoiseSchedule
    guidance: tuple[float, float]
    grid: Grid
    """Where the timesteps of its path lie."""
    counts: tuple[int, ...] = FEW_STEPS
    solver_steps: int = 8
    """Of the teacher from pure noise; from lower on as many fewer as the way is shorter."""

    def ask(self, pair: Pair[_Told], clean: Tensor, told: _Told, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `Objective.ask`. One place on one path, and one guidance for the batch."""
        count = self.counts[int(torch.randint(len(self.counts), (), generator=generator))]
        path = timesteps_on(self.grid, count)
        stop = int(torch.randint(count, (), generator=generator))
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        noisy = walk(pair, self.schedule, noise, path[: stop + 1], told, generator)
        guidance = _guidance(self.guidance, 1, generator).expand(len(clean)).to(clean.device)
        wanted = endpoint(pair, self.schedule, noisy, self.down_from(path[stop]), told, guidance)
        return answer(pair, self.schedule, noisy, all_at(path[stop], clean), told), wanted

    def down_from(self, start: int) -> tuple[int, ...]:
        """The teacher's timesteps from `start` down, in equal parts."""
        steps = max(2, round(self.solver_steps * (start + 1) / len(self.schedule)))
        return tuple(round((start + 1) * (steps - index) / steps) - 1 for index in range(steps))


@torch.no_grad()
def walk(
    pair: Pair[_Told],
    schedule: NoiseSchedule,
    noise: Tensor,
    timesteps: Sequence[int],
    told: _Told,
    generator: torch.Generator,
) -> Tensor:
    """What the student meets at the last of the falling `timesteps` on its way from `noise`: each answer is noised
    again to where the next one begins (multistep consistency sampling, Song et al., 2023, arXiv:2303.01469)."""
    noisy = noise
    for here, there in pairwise(timesteps):
        clean = answer(pair, schedule, noisy, all_at(here, noise), told)
        fresh = torch.randn(noise.shape, generator=generator).to(noise.device)
        noisy = schedule.noised(clean, fresh, all_at(there, noise))
    return noisy


def start_shares(progress: float, solver_steps: int) -> Tensor:
    """The chance of each point of the solver's grid to be started from, `(solver_steps,)`."""
    phase = FLASH_PHASES[min(int(progress * len(FLASH_PHASES)), len(FLASH_PHASES) - 1)]
    index = torch.arange(solver_steps, dtype=torch.float32)
    modes = torch.arange(len(phase)) * (solver_steps / len(phase))
    shares = (torch.tensor(phase) * torch.exp(-((index[:, None] - modes) ** 2) / _SPREAD)).sum(dim=1)
    return shares / shares.sum()


@torch.no_grad()
def endpoint(
    pair: Pair[_Told], schedule: NoiseSchedule, noisy: Tensor, grid: tuple[int, ...], told: _Told, guidance: Tensor
) -> Tensor:
    """x₀ where the teacher ends that goes from `noisy` along the falling `grid`."""
    return solve(
        lambda at, timesteps: pair.teacher(at, timesteps, told, guidance), pair.prediction_type, schedule, noisy, grid
    )


def _noised(schedule: NoiseSchedule, clean: Tensor, timesteps: Tensor, last: int, generator: torch.Generator) -> Tensor:
    """`clean` noised to `timesteps`; from `last` nothing of it is left, as it is where sampling begins."""
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    is_last = (timesteps == last).view(-1, *(1,) * (clean.ndim - 1))
    return torch.where(is_last, noise, schedule.noised(clean, noise, timesteps))


def _guidance(bounds: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(count, generator=generator)
