"""How much memory the training of a LoRA takes, told before anything is loaded. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from engines.footprint import CELL_PX, ITEM_BYTES, Footprint, decoder_work, unet_work
from engines.plans import HEADROOM, Means
from studio.domain.distillation import Reach
from studio.domain.memory import MemoryPlan
from studio.domain.training import OptimizerId, TrainingPlan
from studio.domain.training_estimate import TrainingMemory

POCKET_AT_ONCE, LARGE_AT_ONCE = 8, 1
"""Samples that are drawn together: large ones gain no time by it, and fill the memory."""
PROCESS_BYTES = 500 * 2**20
"""What a process takes that has imported torch and diffusers and loaded nothing; a CUDA context takes as much of a
GPU."""
_KEPT: Mapping[str, Mapping[Reach, int]] = {
    "sd15": {"attention": 97_400, "attention_and_feed_forward": 112_400, "all": 114_100},
    "sd21": {"attention": 91_800, "attention_and_feed_forward": 112_100, "all": 113_900},
    "sdxl": {"attention": 170_300, "attention_and_feed_forward": 205_200, "all": 209_700},
}
"""Values a latent cell of one picture that a full-size UNet keeps for its backward pass, as autograd's hooks count
them."""
_SPREAD = 1.33
"""As measured, with what is passed on and blocks of memory that do not fit into each other's places."""
_CHECKPOINTED = 57_500
"""What lies between blocks, and the largest block, which is computed again; measured."""
_SHARED = 180_000_000
"""Values that full-size layers take beside that, whatever the number of pictures: weights laid out anew. Measured."""
_POCKET_KEPT = 20_000
"""Of miniatures, with their attention's scores and their text encoders. Measured (docs/benchmarks.md)."""
_POCKET_SHARED_BYTES = 24 * 2**20
_TEXT_KEPT: Mapping[str, int] = {"sd15": 17_700_000, "sd21": 45_000_000, "sdxl": 97_000_000}
"""Values for each caption where full-size text encoders learn: 25 rows of each layer's width a token."""
_OPTIMIZER_BYTES: Mapping[OptimizerId, int] = {"adamw": 8, "adamw8bit": 2, "prodigy": 16}
"""For each number that is trained: its moments."""
_TRAINED_BYTES = 4 + 4 + 4
"""And in float32 itself, its gradient, or a copy while the average is looked at, and its average."""


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """A plan for a checkpoint of `family` with weights of `footprint`; the adapter has so many `values`."""

    plan: TrainingPlan
    family: str
    footprint: Footprint
    values: int


def choose_training(task: TrainingTask, means: Means) -> TrainingMemory:
    """The fastest way of training that fits: all that a step computes is kept for its backward pass, or else only what
    lies between blocks. Where neither fits, the latter."""
    whole = _memory(task, means, is_checkpointed=False)
    return whole if whole.fits or task.footprint.is_small else _memory(task, means, is_checkpointed=True)


def _memory(task: TrainingTask, means: Means, *, is_checkpointed: bool) -> TrainingMemory:
    mixed = 0 if means.dtype == "float32" else ITEM_BYTES[means.dtype]  # a copy that matrix products are computed with
    per_value = _TRAINED_BYTES + _OPTIMIZER_BYTES[task.plan.optimizer] + mixed
    return TrainingMemory(
        device=means.device,
        dtype=means.dtype,
        is_checkpointed=is_checkpointed,
        process=PROCESS_BYTES,
        weights=task.footprint.total * ITEM_BYTES[means.dtype],
        trained=task.values * per_value,
        step=_step_work(task, means, is_checkpointed=is_checkpointed),
        drawing=_drawing_work(task, means),
        free_bytes=int(means.free_bytes * HEADROOM),
    )


def _step_work(task: TrainingTask, means: Means, *, is_checkpointed: bool) -> int:
    plan = task.plan
    pictures = plan.batch_size * (2 if plan.num_prior and plan.prior_weight else 1)
    cells, item = pictures * plan.size**2 // CELL_PX**2, ITEM_BYTES[means.dtype]
    if task.footprint.is_small:
        return cells * _POCKET_KEPT * item + _POCKET_SHARED_BYTES
    kept = _CHECKPOINTED if is_checkpointed else _SPREAD * _KEPT[task.family][plan.reach]
    texts = pictures * _TEXT_KEPT[task.family] if plan.text_learning_rate else 0
    return int(cells * kept + texts + _SHARED) * item


def _drawing_work(task: TrainingTask, means: Means) -> int:
    """Of samples, with guidance; measuring the loss on pictures held out takes no more."""
    plan = MemoryPlan(device=means.device, dtype=means.dtype, placement="resident", needed_bytes=0, free_bytes=0)
    side, at_once = task.plan.size, POCKET_AT_ONCE if task.footprint.is_small else LARGE_AT_ONCE
    drawn = unet_work(task.footprint, plan, side, side, pictures=2 * at_once)
    return max(drawn, decoder_work(task.footprint, plan, side, side))
