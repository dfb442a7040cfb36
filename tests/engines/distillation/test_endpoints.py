"""Endpoints of the teacher that are kept: each is computed once, used again, and the same either way."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from engines.distillation.endpoints import KeptEndpoints
from engines.distillation.objectives import Flash, Objective
from engines.distillation.trainer import distil
from engines.distillation.unet_pair import UnetPair
from engines.pocket.build.denoiser import noise_schedule
from engines.training.loop import Plan
from engines.training.unet import Told
from tests.engines.distillation.making import batch, pair_of

STEPS = 16


def test_a_question_is_repeated_within_its_phase_alone_and_as_often_as_others() -> None:
    kept = KeptEndpoints(Path("nowhere"), num_steps=40, uses=5)
    questions = [kept.question_of(step) for step in range(40)]
    assert questions[:10] == [0, 1] * 5
    assert questions[10:20] == [10, 11] * 5
    assert len(set(questions)) == 8


def test_a_training_of_an_odd_length_has_a_question_for_every_step() -> None:
    kept = KeptEndpoints(Path("nowhere"), num_steps=7, uses=4)
    assert [kept.question_of(step) for step in range(7)] == [0, 0, 2, 2, 4, 4, 6]


def trained(folder: Path, *, stop_at: int = STEPS, uses: int = 4) -> tuple[UnetPair, list[int]]:
    """A student after Flash in `folder`, and at which steps its teacher went all the way."""
    pair, computed = pair_of("sd15"), []
    kept = KeptEndpoints(folder / "endpoints", STEPS, uses)

    def recall(step: int, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        def counted() -> torch.Tensor:
            computed.append(step)
            return compute()

        return kept.recall(step, counted)

    def flash(step: int) -> Objective[Told]:
        if step == stop_at:
            raise KeyboardInterrupt
        objective = Flash[Told](schedule=noise_schedule(), guidance=(2.0, 4.0), progress=step / STEPS, solver_steps=4)
        return Flash(**{**vars(objective), "recall": partial(recall, step)})

    plan = Plan(name="lora", steps=STEPS, learning_rate=1e-3, warmup=1)
    try:
        distil(pair, flash, lambda step: batch("sd15", step), plan, folder, question_of=kept.question_of)
    except KeyboardInterrupt:
        assert stop_at < STEPS
    return pair, computed


def test_the_teacher_goes_all_the_way_once_for_each_question(tmp_path: Path) -> None:
    _, computed = trained(tmp_path)
    assert computed == [0, 4, 8, 12]
    assert len(list((tmp_path / "endpoints").iterdir())) == 4


def test_a_run_that_was_killed_reads_what_it_kept_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole")
    trained(tmp_path / "killed", stop_at=6)
    resumed, computed = trained(tmp_path / "killed")
    assert computed == [8, 12]
    for ours, theirs in zip(resumed.lora.parameters(), whole.lora.parameters(), strict=True):
        assert torch.equal(ours, theirs)
