"""Distillation tried where its answer is known: two points on a line, noised, whose score can be written down.

A training step that gives few-step sampling puts nearly every sample on one of the two; one that only copies the
teacher leaves about half of them between. The steps trained here are those that train pictures."""

from collections.abc import Callable

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, LCMScheduler
from torch import Tensor, nn

from engines.distillation.objectives import (
    Flash,
    Lcm,
    Objective,
    OwnPath,
    Pair,
    answer,
    ddim_step,
    endpoint,
    start_shares,
)
from engines.distillation.sampling import draw_few
from engines.distillation.terms import total
from studio.domain.catalogue import PredictionType
from studio.domain.timesteps import lcm_timesteps, trailing_timesteps
from tests.engines.distillation.toy import CONFIG, SCHEDULE, SPREAD, TwoPoints, points

TRAINING_STEPS, BATCH = 6000, 256


class TargetWithoutAdapter(TwoPoints):
    """The fault of other distillers: what is wanted of the student comes from the teacher."""

    def student(self, noisy: Tensor, timesteps: Tensor, told: None) -> Tensor:
        if torch.is_grad_enabled():
            return super().student(noisy, timesteps, told)
        return self.exact(noisy, timesteps)


class Naive:
    """Regression on the teacher's prediction at the same timestep."""

    def ask(self, pair: Pair[None], clean: Tensor, told: None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        timesteps = torch.randint(len(SCHEDULE), (len(clean),), generator=generator)
        noisy = SCHEDULE.noised(clean, torch.randn(clean.shape, generator=generator), timesteps)
        wanted = pair.teacher(noisy, timesteps, None, torch.ones(len(clean)))
        return pair.student(noisy, timesteps, None), wanted


def distilled(pair: TwoPoints, objective: Callable[[float], Objective[None]]) -> TwoPoints:
    """`pair`, its student trained by what `objective` says at each share of the training."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(pair.residual.parameters(), lr=2e-3, weight_decay=0.0)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TRAINING_STEPS)
    for step in range(TRAINING_STEPS):
        loss = total(objective(step / TRAINING_STEPS), (), pair, points(BATCH, generator), None, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    return pair


@torch.no_grad()
def sampled(pair: TwoPoints, timesteps: tuple[int, ...], count: int = 20_000) -> Tensor:
    """Samples of the student by diffusers' LCM sampler, `(count, 1)`."""
    generator = torch.Generator().manual_seed(1)
    scheduler = LCMScheduler.from_config(CONFIG, prediction_type=pair.prediction_type)
    scheduler.set_timesteps(timesteps=list(timesteps))
    noisy = torch.randn(count, 1, generator=generator)
    for timestep in scheduler.timesteps:
        output = pair.student(noisy, timestep.expand(count), None)
        noisy = scheduler.step(output, timestep, noisy, generator=generator).prev_sample
    return noisy


def share_on_a_point(samples: Tensor) -> float:
    return float(((samples.abs() - 1).abs() < 3 * SPREAD).float().mean())


def share_between(samples: Tensor) -> float:
    return float((samples.abs() < 0.5).float().mean())


@pytest.fixture(scope="module")
def naive_share() -> float:
    return share_on_a_point(sampled(distilled(TwoPoints(), lambda progress: Naive()), lcm_timesteps(4)))


def lcm(progress: float) -> Objective[None]:
    return Lcm(schedule=SCHEDULE, guidance=(1.0, 1.0))


def flash(progress: float) -> Objective[None]:
    return Flash(schedule=SCHEDULE, guidance=(1.0, 1.0), progress=progress)


def own_path(progress: float) -> Objective[None]:
    return OwnPath(schedule=SCHEDULE, guidance=(1.0, 1.0), grid="lcm")


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_four_steps_of_a_distilled_student_land_on_the_data(
    prediction_type: PredictionType, naive_share: float
) -> None:
    samples = sampled(distilled(TwoPoints(prediction_type), lcm), lcm_timesteps(4))
    assert share_on_a_point(samples) >= 0.80
    assert share_between(samples) <= 0.10
    assert share_on_a_point(samples) >= naive_share + 0.3


def test_a_student_on_its_own_path_lands_on_the_data_in_two_steps_and_in_four(naive_share: float) -> None:
    student = distilled(TwoPoints(), own_path)
    for steps in (2, 4):
        samples = sampled(student, lcm_timesteps(steps))
        assert share_on_a_point(samples) >= 0.80
        assert share_between(samples) <= 0.10
        assert share_on_a_point(samples) >= naive_share + 0.3


def test_a_target_with_the_adapter_off_is_no_better_than_the_naive_recipe(naive_share: float) -> None:
    samples = sampled(distilled(TargetWithoutAdapter(), lcm), lcm_timesteps(4))
    assert share_on_a_point(samples) < min(0.80, naive_share + 0.3)


def test_flash_lands_on_the_data_too(naive_share: float) -> None:
    samples = sampled(distilled(TwoPoints(), flash), trailing_timesteps(4))
    assert share_on_a_point(samples) >= 0.80
    assert share_between(samples) <= 0.10
    assert share_on_a_point(samples) >= naive_share + 0.3


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_what_a_network_predicts_does_not_change_where_its_step_leads(kind: PredictionType) -> None:
    noisy = points(64, torch.Generator().manual_seed(2))
    start, end = torch.full((64,), 599), torch.full((64,), 579)
    told = (None, torch.ones(64))
    by_noise = ddim_step(TwoPoints("epsilon"), SCHEDULE, noisy, start, end, *told)
    torch.testing.assert_close(ddim_step(TwoPoints(kind), SCHEDULE, noisy, start, end, *told), by_noise)


def test_an_answer_at_timestep_zero_is_the_sample_itself() -> None:
    noisy = points(8, torch.Generator().manual_seed(3))
    assert torch.equal(answer(TwoPoints(), SCHEDULE, noisy, torch.zeros(8, dtype=torch.long), None), noisy)


def test_what_is_wanted_moves_with_the_adapter_and_carries_no_gradient() -> None:
    pair, generator = TwoPoints(), torch.Generator()

    def loss() -> Tensor:
        return total(lcm(0), (), pair, points(64, generator.manual_seed(4)), None, generator)

    before = loss()
    nn.init.constant_(pair.residual.layers[-1].bias, 0.1)
    with_target = loss()
    faulty = TargetWithoutAdapter(residual=pair.residual)
    fixed = total(lcm(0), (), faulty, points(64, generator.manual_seed(4)), None, generator)
    assert not torch.isclose(with_target, fixed) and not torch.isclose(with_target, before)


def test_the_end_of_the_teachers_path_is_that_of_diffusers_solver() -> None:
    pair, noisy = TwoPoints(), torch.randn(64, 1, generator=torch.Generator().manual_seed(5))
    scheduler = DPMSolverMultistepScheduler.from_config(CONFIG, timestep_spacing="trailing", final_sigmas_type="zero")
    scheduler.set_timesteps(16)
    theirs = noisy
    for timestep in scheduler.timesteps:
        theirs = scheduler.step(pair.exact(theirs, timestep.expand(64)), timestep, theirs).prev_sample
    ours = endpoint(pair, SCHEDULE, noisy, tuple(scheduler.timesteps.tolist()), None, torch.ones(64))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_few_answers_are_the_steps_of_diffusers_lcm_sampler(kind: PredictionType) -> None:
    pair, timesteps = TwoPoints(kind), lcm_timesteps(4)
    noise = torch.randn(64, 1, generator=torch.Generator().manual_seed(6))
    scheduler = LCMScheduler.from_config(CONFIG, prediction_type=kind)
    scheduler.set_timesteps(4)
    assert tuple(scheduler.timesteps.tolist()) == timesteps
    theirs, generator = noise, torch.Generator().manual_seed(7)
    for timestep in scheduler.timesteps:
        output = pair.exact(theirs, timestep.expand(64))
        theirs = scheduler.step(output, timestep, theirs, generator=generator).prev_sample
    ours = draw_few(pair, SCHEDULE, noise, timesteps, None, torch.Generator().manual_seed(7))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_teacher_takes_fewer_steps_the_shorter_its_way_and_ends_where_pictures_are() -> None:
    objective = OwnPath(schedule=SCHEDULE, guidance=(1.0, 1.0), grid="lcm")
    for start, steps in ((999, 8), (499, 4), (259, 2), (139, 2)):
        way = objective.down_from(start)
        assert (way[0], len(way)) == (start, steps)
        assert list(way) == sorted(way, reverse=True)


def test_flash_starts_near_the_sampling_timesteps_and_from_pure_noise_most_often_at_the_end() -> None:
    first, last = start_shares(0.0, 16), start_shares(1.0, 16)
    assert first[:6].sum() < 1e-3
    assert last.argmax() == 0
    assert float(last[[0, 4, 8, 12]].sum()) > 0.7
