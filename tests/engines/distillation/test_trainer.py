"""A UNet distilled for real, if shortly: its teacher stays to the bit what it was, and a stopped run goes on."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engines.distillation.objectives import Flash, Lcm, Objective
from engines.distillation.terms import total
from engines.distillation.trainer import Batches, distil
from engines.pocket.build.denoiser import noise_schedule
from engines.pocket.build.recipes import RECIPES
from engines.training.loop import Plan
from engines.training.unet import Told
from tests.engines.distillation.making import batch, pair_of

SCHEDULE = noise_schedule()


def lcm(step: int) -> Objective[Told]:
    return Lcm(schedule=SCHEDULE, guidance=(2.0, 4.0))


@pytest.mark.parametrize("family", RECIPES)
def test_the_teacher_is_the_guided_checkpoint_whatever_the_student_has_learnt(family: str, tmp_path: Path) -> None:
    pair = pair_of(family)
    noisy, told = batch(family)
    timesteps, guidance = torch.tensor([999, 499]), torch.tensor([1.0, 3.0])
    before = pair.teacher(noisy, timesteps, told, guidance)
    alone = pair.student(noisy, timesteps, told)
    torch.testing.assert_close(before[0], alone[0], atol=1e-5, rtol=1e-4)  # guidance of 1 is none
    nobody = Told(prompt=told.negative, negative=told.negative, time_ids=told.time_ids)
    plain = pair.student(noisy[1:], timesteps[1:], nobody if told.time_ids is None else _first(nobody))
    torch.testing.assert_close(before[1], (plain + 3 * (alone[1:] - plain))[0], atol=1e-5, rtol=1e-4)
    plan = Plan(name="lora", steps=3, learning_rate=1e-2, warmup=1)
    distil(pair, lcm, lambda step: batch(family, step), plan, tmp_path)
    assert torch.equal(pair.teacher(noisy, timesteps, told, guidance), before)
    assert not torch.allclose(pair.student(noisy, timesteps, told), alone, atol=1e-3)


def _first(told: Told) -> Told:
    assert told.time_ids is not None
    return Told(prompt=told.prompt, negative=told.negative, time_ids=told.time_ids[:1])


@pytest.mark.parametrize("family", RECIPES)
def test_flash_trains_every_family(family: str) -> None:
    pair = pair_of(family)
    clean, told = batch(family)
    objective = Flash(schedule=SCHEDULE, guidance=(3.0, 3.0), solver_steps=4)
    loss = total(objective, (), pair, clean, told, torch.Generator().manual_seed(0))
    loss.backward()
    assert torch.isfinite(loss)
    assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in pair.lora.parameters())
    assert all(parameter.grad is None for parameter in pair.unet.parameters())


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    plan = Plan(name="lora", steps=6, learning_rate=1e-3, warmup=1)
    whole = pair_of("sd15")
    distil(whole, lcm, lambda step: batch("sd15", step), plan, tmp_path / "whole")

    def stopping_at(stop: int) -> Batches:
        def batches(step: int) -> tuple[Tensor, Told]:
            if step == stop:
                raise KeyboardInterrupt
            return batch("sd15", step)

        return batches

    for stop in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            distil(pair_of("sd15"), lcm, stopping_at(stop), plan, tmp_path / "stopped")
    resumed = pair_of("sd15")
    distil(resumed, lcm, stopping_at(6), plan, tmp_path / "stopped")
    pairs = zip(whole.lora.parameters(), resumed.lora.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
