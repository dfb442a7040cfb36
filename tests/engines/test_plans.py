"""Plans for machines of every size: the fastest that fits, the ladder down from it, and a refusal with numbers."""

from dataclasses import replace

import pytest

from engines.footprint import Footprint, usual_footprint
from engines.plans import Means, Task, choose_plan, lighter, refusal
from studio.domain.catalogue import Catalogue
from studio.domain.memory import MemoryPlan, Placement
from studio.domain.request import GenerationRequest

GB = 2**30


def task_of(catalogue: Catalogue, family: str, size: int | None = None) -> Task:
    row = catalogue.family(family)
    size = size or row.native_size
    return Task(footprint=usual_footprint(row), width=size, height=size, is_guided=True)


def on_gpu(gigabytes: float) -> Means:
    """A card of that size, a tenth of it taken by the desktop and the driver."""
    return Means(device="cuda", dtype="float16", free_bytes=int(0.93 * gigabytes * GB))


PLANS = {
    ("sd15", 2): ("sequential_offload", False),
    ("sd15", 3): ("resident", False),
    ("sd15", 4): ("resident", False),
    ("sd21", 2): ("sequential_offload", False),
    ("sd21", 3): ("model_offload", False),
    ("sd21", 4): ("resident", True),
    ("sd21", 6): ("resident", False),
    ("sdxl", 4): ("sequential_offload", False),
    ("sdxl", 6): ("sequential_offload", False),
    ("sdxl", 8): ("model_offload", False),
    ("sdxl", 12): ("resident", False),
    ("sdxl", 24): ("resident", False),
}
"""At the native size of each family, in float16."""


@pytest.mark.parametrize(("family", "gigabytes"), PLANS)
def test_a_card_of_that_size_gets_the_fastest_plan_that_fits(catalogue: Catalogue, family: str, gigabytes: int) -> None:
    plan = choose_plan(task_of(catalogue, family), on_gpu(gigabytes))
    assert plan.fits
    assert (plan.placement, plan.is_tiled) == PLANS[family, gigabytes]
    assert not plan.is_sliced


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
@pytest.mark.parametrize("size", [512, 768, 1024])
def test_more_memory_never_means_a_slower_plan(catalogue: Catalogue, family: str, size: int) -> None:
    order = ["resident", "model_offload", "sequential_offload"]
    task = task_of(catalogue, family, size)
    plans = [choose_plan(task, on_gpu(gigabytes)) for gigabytes in (2, 3, 4, 6, 8, 12, 24)]
    ranks = [(order.index(plan.placement), plan.is_tiled) for plan in plans if plan.fits]
    assert ranks == sorted(ranks, reverse=True)
    assert plans[-1].placement == "resident" and not plans[-1].savings


def test_a_computer_with_little_memory_reads_weights_from_disk(catalogue: Catalogue) -> None:
    means = Means(device="cpu", dtype="bfloat16", free_bytes=4 * GB)
    plan = choose_plan(task_of(catalogue, "sdxl"), means)
    assert plan.fits and plan.placement == "mapped"
    assert "read from disk" in str(plan)


def test_the_ladder_goes_down_in_order_and_ends_in_a_refusal_with_numbers(catalogue: Catalogue) -> None:
    task = task_of(catalogue, "sdxl")
    plan: MemoryPlan | None = choose_plan(task, on_gpu(24))
    rungs = []
    needed = []
    while plan is not None:
        last, plan = plan, lighter(plan, task)
        rungs.append(last.savings)
        needed.append(last.needed_bytes)
    assert [len(savings) for savings in rungs] == [0, 1, 2, 3, 3, 4]
    assert rungs[-1] == (
        "one layer on the GPU at a time",
        "attention in slices",
        "decoding in tiles",
        "guidance in two halves",
    )
    assert needed[-1] == min(needed)
    error = refusal("SDXL base 1.0", last, task)
    assert "1024 × 1024 px" in error.message and error.message.count(" GB") == 2
    assert "smaller" in error.hint


def test_where_weights_are_can_be_insisted_on(catalogue: Catalogue) -> None:
    means = Means(device="cuda", dtype="float16", free_bytes=24 * GB, placement="model_offload")
    assert choose_plan(task_of(catalogue, "sd15"), means).placement == "model_offload"


def test_pictures_too_large_for_any_plan_do_not_fit() -> None:
    huge = Task(footprint=Footprint(unet=10, text=10, vae=10), width=2048, height=2048, is_guided=True)
    plan = choose_plan(huge, Means(device="cpu", dtype="float32", free_bytes=GB // 2))
    assert not plan.fits and plan.is_tiled


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("placement", ["resident", "model_offload", "sequential_offload"])
def test_a_controlnet_is_counted_wherever_the_others_are(
    catalogue: Catalogue, family: str, placement: Placement
) -> None:
    request = GenerationRequest(prompt="a hare", checkpoint=f"pocket-{family}")
    free = catalogue.resolve(request)
    footprint = usual_footprint(catalogue.family(family))
    steered = free.model_copy(update={"control": "canny", "control_image": "0" * 64})
    means = replace(on_gpu(24), placement=placement)
    needed = [choose_plan(Task.of(recipe, footprint), means).needed_bytes for recipe in (free, steered)]
    real = {"sd15": 361_279_120, "sdxl": 1_251_014_160}[family]
    assert 2 * real <= needed[1] - needed[0] <= 2.4 * real


def test_every_family_says_how_large_it_is(catalogue: Catalogue) -> None:
    for family in catalogue.families:
        footprint = usual_footprint(family)
        assert footprint.unet > footprint.text > footprint.vae
