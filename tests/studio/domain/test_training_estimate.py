"""What a training takes is told before it begins: numbers move the right way, and what does not fit has a way out."""

from typing import Any

import pytest

from engines.footprint import usual_footprint
from engines.plans import Means
from engines.training.footprint import TrainingTask, choose_training
from engines.training.reach import adapter_values
from studio.domain.catalogue import Catalogue
from studio.domain.errors import OutOfMemory, StorageFailed
from studio.domain.training import TrainingPlan, parse_training, resolve_training
from studio.domain.training_estimate import (
    Pace,
    Preflight,
    TrainingDisk,
    TrainingMemory,
    find_remedy,
    steps_words,
    training_disk,
)

GB = 2**30
MB = 2**20


def planned(catalogue: Catalogue, num_pictures: int = 20, **values: Any) -> TrainingPlan:
    given = {"name": "x", "folder": "x", "checkpoint": "sd15", "reach": "all", "rank": 16, "batch_size": 4}
    return resolve_training(parse_training({**given, **values}), catalogue, num_pictures)


def memory(
    catalogue: Catalogue, plan: TrainingPlan, free: int = 1000 * GB, dtype: str = "float32", device: str = "cpu"
) -> TrainingMemory:
    family = catalogue.family(catalogue.checkpoint(plan.checkpoint).family)
    values = adapter_values(family.id, None, plan.reach, plan.rank, learns_text=bool(plan.text_learning_rate))
    task = TrainingTask(plan=plan, family=family.id, footprint=usual_footprint(family), values=values)
    return choose_training(task, Means(device=device, dtype=dtype, free_bytes=free))


def disk(catalogue: Catalogue, plan: TrainingPlan, free: int = 1000 * GB) -> TrainingDisk:
    values = adapter_values("sd15", None, plan.reach, plan.rank, learns_text=False)
    return training_disk(plan, values=values, text_bytes=236_544, download_bytes=0, free_bytes=free)


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ({"batch_size": 8}, {"batch_size": 4}),
        ({"size": 768}, {"size": 512}),
        ({"rank": 128}, {"rank": 16}),
        ({"reach": "all"}, {"reach": "attention"}),
        ({"text_learning_rate": 1e-5}, {"text_learning_rate": 0}),
        ({"optimizer": "prodigy"}, {"optimizer": "adamw"}),
        ({"num_prior": 10, "prior_prompts": ("a dog",)}, {"num_prior": 0}),
        ({"checkpoint": "sdxl", "size": 512}, {"checkpoint": "sd15"}),
    ],
    ids=str,
)
def test_what_asks_for_more_takes_more_memory(catalogue: Catalogue, more: dict[str, Any], less: dict[str, Any]) -> None:
    needed = [memory(catalogue, planned(catalogue, **values)).needed_bytes for values in (less, more)]
    assert needed[0] < needed[1]


def test_batches_instead_of_pictures_at_once_cost_no_memory(catalogue: Catalogue) -> None:
    alone, many = (planned(catalogue, batch_size=1, accumulation=count) for count in (1, 8))
    assert memory(catalogue, alone).needed_bytes == memory(catalogue, many).needed_bytes


def test_half_precision_halves_what_stays_and_not_what_is_trained(catalogue: Catalogue) -> None:
    plan = planned(catalogue)
    full, half = memory(catalogue, plan), memory(catalogue, plan, dtype="bfloat16")
    assert half.weights * 2 == full.weights and half.trained >= full.trained


def test_parts_are_computed_twice_only_where_memory_is_short(catalogue: Catalogue) -> None:
    plan = planned(catalogue)
    roomy = memory(catalogue, plan)
    assert not roomy.is_checkpointed
    tight = memory(catalogue, plan, free=roomy.needed_bytes)
    assert tight.is_checkpointed and tight.needed_bytes < roomy.needed_bytes and tight.fits


@pytest.mark.parametrize("checkpoint", ["sd15", "sd21", "sdxl"])
def test_a_plan_that_is_too_large_has_a_remedy_that_fits(catalogue: Catalogue, checkpoint: str) -> None:
    plan = planned(catalogue, checkpoint=checkpoint, batch_size=16, rank=64)

    def told(other: TrainingPlan) -> TrainingMemory:
        return memory(catalogue, other, free=int(least * 1.5), dtype="float16", device="cuda")

    least = memory(catalogue, plan, dtype="float16", device="cuda").weights + GB
    assert not told(plan).fits
    remedy = find_remedy(plan, lambda other: told(other).fits)
    assert remedy is not None and told(remedy).fits
    together = plan.batch_size * plan.accumulation
    assert remedy.batch_size * remedy.accumulation == together, "a step learns from as many pictures"
    problem = Preflight(plan=plan, memory=told(plan), disk=disk(catalogue, plan), pace=None, remedy=remedy).problem
    assert isinstance(problem, OutOfMemory) and "free on the GPU" in problem.message
    assert f"{remedy.accumulation} batches a step" in problem.hint


def test_a_remedy_changes_nothing_that_need_not_change(catalogue: Catalogue) -> None:
    plan = planned(catalogue, batch_size=4, rank=64)
    whole = memory(catalogue, planned(catalogue, batch_size=2, rank=64), dtype="float16")
    remedy = find_remedy(
        plan, lambda other: memory(catalogue, other, dtype="float16").needed_bytes <= whole.needed_bytes
    )
    assert remedy == plan.model_copy(update={"batch_size": 2, "accumulation": 2})
    ranks = find_remedy(plan, lambda other: other.rank <= 16)
    assert ranks == plan.model_copy(update={"rank": 16, "alpha": 16.0}), "the batch is left as it was"
    assert find_remedy(plan, lambda other: False) is None


def test_a_model_that_cannot_be_trained_here_is_said_to_be_too_large(catalogue: Catalogue) -> None:
    plan = planned(catalogue, checkpoint="sdxl")
    told = memory(catalogue, plan, free=2 * GB)
    assert find_remedy(plan, lambda other: memory(catalogue, other, free=2 * GB).fits) is None
    problem = Preflight(plan=plan, memory=told, disk=disk(catalogue, plan), pace=None).problem
    assert isinstance(problem, OutOfMemory) and "smaller model" in problem.hint


def test_a_full_disk_is_refused_with_what_would_fit(catalogue: Catalogue) -> None:
    plan = planned(catalogue, shuffle_tags=True, num_steps=20_000)
    free = 2 * disk(catalogue, planned(catalogue, num_steps=20_000)).needed_bytes
    told = disk(catalogue, plan, free=free)
    assert not told.fits, "each order of tags is read and kept"
    remedy = find_remedy(plan, lambda other: disk(catalogue, other, free=free).fits)
    assert remedy == plan.model_copy(update={"shuffle_tags": False})
    problem = Preflight(plan=plan, memory=None, disk=told, pace=None, remedy=remedy).problem
    assert isinstance(problem, StorageFailed) and "tags in the order" in problem.hint and "Or free " in problem.hint


def test_steps_are_told_by_how_they_come_about(catalogue: Catalogue) -> None:
    plan = planned(catalogue, 20, num_steps=450, batch_size=4, accumulation=2, validation_share=0.1)
    assert steps_words(plan) == ("450 = 18 pictures (2 more held out) × 200 times ÷ 8 a step (4 at once × 2 batches)")


def test_time_is_that_of_steps_and_looks_or_not_known(catalogue: Catalogue) -> None:
    plan = planned(catalogue, num_steps=100, look_every=50)
    told = Preflight(plan=plan, memory=None, disk=disk(catalogue, plan), pace=None)
    assert told.total_s is None and "the first steps tell" in told.line
    pace = Pace(step_s=2.0, look_s=30.0, source="Earlier")
    known = Preflight(plan=plan, memory=None, disk=disk(catalogue, plan), pace=pace)
    assert known.total_s == 100 * 2 + 3 * 30
    assert "about 5 min, 2 s a step and 30 s a look at samples, as in 'Earlier'" in known.line
