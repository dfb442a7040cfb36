"""From the memory that is there to how a picture is made: the fastest plan that fits, and the ladder down from it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from engines.footprint import TILE_PX, Footprint, needed_bytes
from studio.domain.errors import OutOfMemory
from studio.domain.memory import SHORTAGE_REMEDY, Attention, MemoryPlan, Placement
from studio.domain.request import ResolvedRequest
from studio.domain.steering import NO_CONTROL

HEADROOM = 0.9
"""Part of the free memory that a plan may fill: predictions are off by up to a tenth, and others work here too."""
PLACEMENTS: dict[str, tuple[Placement, ...]] = {
    "cpu": ("resident", "mapped"),
    "cuda": ("resident", "model_offload", "sequential_offload"),
    "mps": ("resident", "model_offload"),
}
"""Where weights may be on a device, the fastest first."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be made: of which weights, how large, with guidance or without, and how many at once."""

    footprint: Footprint
    width: int
    height: int
    is_guided: bool
    num_pictures: int = 1

    @classmethod
    def of(cls, recipe: ResolvedRequest, footprint: Footprint) -> "Task":
        """The task of one picture of `recipe`."""
        width, height = recipe.final_size
        if recipe.control != NO_CONTROL:
            footprint = footprint.steered()
        return cls(footprint=footprint, width=width, height=height, is_guided=recipe.uses_guidance)


@dataclass(frozen=True, kw_only=True)
class Means:
    """What there is to make it with: `free_bytes` for weights and work together, and, where the owner of the machine
    insists on one, the placement."""

    device: str
    dtype: str
    free_bytes: int
    attention: Attention = "fused"
    placement: Placement | None = None


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the owner of the machine decides: how much memory to count on, where weights are. None leaves it open."""

    memory_bytes: int | None = None
    placement: Placement | None = None


NO_WISHES = Wishes()


def choose_plan(task: Task, means: Means) -> MemoryPlan:
    """The fastest plan that fits; where none does, the one that takes least (`fits` is False then).

    Slices of attention are never chosen ahead of time: they cost up to half of the speed and save little.
    """
    plans = list(_plans(task, means))
    return next((plan for plan in plans if plan.fits), min(plans, key=lambda plan: plan.needed_bytes))


def lighter(plan: MemoryPlan, task: Task) -> MemoryPlan | None:
    """The next rung down the ladder, for when memory ran out all the same: attention in slices, decoding in tiles,
    weights offloaded, guidance in halves; None at its end."""
    if not plan.is_sliced:
        return _counted(replace(plan, is_sliced=True), task)
    if not plan.is_tiled and max(task.width, task.height) > TILE_PX:
        return _counted(replace(plan, is_tiled=True), task)
    placements = PLACEMENTS[plan.device]
    below = placements.index(plan.placement) + 1
    if below < len(placements):
        return _counted(replace(plan, placement=placements[below]), task)
    if not plan.is_halved and task.is_guided:
        return _counted(replace(plan, is_halved=True), task)
    return None


def refusal(title: str, plan: MemoryPlan, task: Task) -> OutOfMemory:
    """What to say when even the lightest plan does not fit."""
    return OutOfMemory(f"{title} at {task.width} × {task.height} px {plan.shortage}.", SHORTAGE_REMEDY)


def _plans(task: Task, means: Means) -> Iterator[MemoryPlan]:
    can_tile = max(task.width, task.height) > TILE_PX
    for placement in (means.placement,) if means.placement else PLACEMENTS[means.device]:
        for is_tiled in (False, True) if can_tile else (False,):
            plan = MemoryPlan(
                device=means.device,
                dtype=means.dtype,
                placement=placement,
                attention=means.attention,
                is_tiled=is_tiled,
                needed_bytes=0,
                free_bytes=int(means.free_bytes * HEADROOM),
            )
            yield _counted(plan, task)


def _counted(plan: MemoryPlan, task: Task) -> MemoryPlan:
    size = task.width, task.height
    needed = needed_bytes(task.footprint, plan, *size, is_guided=task.is_guided, num_pictures=task.num_pictures)
    return replace(plan, needed_bytes=needed)
