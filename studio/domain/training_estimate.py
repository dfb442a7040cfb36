"""What a training takes, told before it begins: memory, disk, steps and time; and what to change where that is too
much."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from studio.domain.datasets import counted
from studio.domain.errors import OutOfMemory, StorageFailed, StudioError
from studio.domain.memory import gigabytes
from studio.domain.training import SHOWN_PROMPTS, TrainingPlan
from studio.domain.wording import listed

_LATENT_CHANNELS, _CELL_PX = 4, 8
_FILE_BYTES = 2048
"""What a file of tensors takes beside them."""
_PNG_PIXEL_BYTES = 2
"""A photograph takes 1.5 to 2 bytes a pixel."""
_STATE_BYTES, _BEST_BYTES, _EXPORT_BYTES = 16, 4, 4
"""For each number of an adapter: itself, its average and two moments; the best so far; each of two layouts."""
_LEAST_RANK, _LEAST_PX, _PX_STEP = 4, 64, 64
_DEVICES = {"cpu": "CPU", "cuda": "GPU", "mps": "Apple GPU"}


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """The most memory that a training takes at once, in bytes, by what takes it: the process itself; the checkpoint's
    weights, which stay as they are; what is `trained`, with gradients, the optimiser's state and the moving average;
    and either the work of a `step` or that of `drawing` samples. `is_checkpointed`: a step computes parts twice to take
    less. `free_bytes` is what there is for it."""

    device: str
    dtype: str
    is_checkpointed: bool
    process: int
    weights: int
    trained: int
    step: int
    drawing: int
    free_bytes: int

    @property
    def needed_bytes(self) -> int:
        return self.process + self.weights + self.trained + max(self.step, self.drawing)

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.free_bytes

    def __str__(self) -> str:
        """It in a few words."""
        where = _DEVICES.get(self.device, self.device)
        needed, free = f"about {gigabytes(self.needed_bytes)}", gigabytes(self.free_bytes)
        told = (
            f"{needed} of the {free} free on the {where}" if self.fits else f"{needed}; {free} is free on the {where}"
        )
        return f"{told}, parts of a step computed twice to save some" if self.is_checkpointed else told


@dataclass(frozen=True, kw_only=True)
class TrainingDisk:
    """What a training writes at most, in bytes: weights that are fetched, what is made of pictures and captions once,
    the run's states and adapters, samples. `free_bytes` is what there is for it."""

    download: int
    cache: int
    states: int
    samples: int
    free_bytes: int

    @property
    def needed_bytes(self) -> int:
        return self.download + self.cache + self.states + self.samples

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.free_bytes

    def __str__(self) -> str:
        """It in a few words."""
        fetched = f", {size_words(self.download)} of it to fetch the model" if self.download else ""
        return f"up to {size_words(self.needed_bytes)}{fetched}"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a training like this one went here: seconds a step, and a look at samples, None where that is not known.
    `source` is the name of the run that this was measured in."""

    step_s: float
    look_s: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """A plan with what it takes. `memory` is None while nobody knows the machine, `pace` while no run like this was
    ever made here; `remedy` is a plan that fits, where this one does not and there is one."""

    plan: TrainingPlan
    memory: TrainingMemory | None
    disk: TrainingDisk
    pace: Pace | None
    remedy: TrainingPlan | None = None

    @property
    def problem(self) -> StudioError | None:
        """What keeps it from being begun, and what would not."""
        if self.memory is not None and not self.memory.fits:
            needed, free = gigabytes(self.memory.needed_bytes), gigabytes(self.memory.free_bytes)
            where = _DEVICES.get(self.memory.device, self.memory.device)
            hint = "Choose a smaller model, or close other programs."
            if self.remedy is not None:
                hint = f"It fits with {changes(self.plan, self.remedy)}."
            return OutOfMemory(
                f"This training takes about {needed} of memory, and {free} is free on the {where}.", hint
            )
        if not self.disk.fits:
            needed, free = size_words(self.disk.needed_bytes), size_words(self.disk.free_bytes)
            missing = size_words(self.disk.needed_bytes - self.disk.free_bytes)
            hint = f"Free {missing}, or choose another data folder (FLASH_STUDIO_DATA_DIR)."
            if self.remedy is not None:
                hint = f"It fits with {changes(self.plan, self.remedy)}. Or free {missing}."
            return StorageFailed(f"This training writes up to {needed}, and {free} of disk is free.", hint)
        return None

    @property
    def facts(self) -> Mapping[str, str]:
        """What is to be said of it by title, in the order in which people ask."""
        memory = "known once the engine is ready" if self.memory is None else str(self.memory)
        return {"Steps": steps_words(self.plan), "Time": self.time, "Memory": memory, "Disk": str(self.disk)}

    @property
    def total_s(self) -> float | None:
        """How long steps and looks take together, in seconds."""
        if self.pace is None:
            return None
        return self.plan.num_steps * self.pace.step_s + num_looks(self.plan) * (self.pace.look_s or 0.0)

    @property
    def time(self) -> str:
        """How long it takes, in words."""
        if self.pace is None or self.total_s is None:
            return "not known yet: the first steps tell"
        told = f"about {span(self.total_s)}, {seconds(self.pace.step_s)} a step"
        looks = "" if self.pace.look_s is None else f" and {seconds(self.pace.look_s)} a look at samples"
        return f"{told}{looks}, as in {self.pace.source!r}"

    @property
    def line(self) -> str:
        """It in one line."""
        return ". ".join(f"{title}: {words}" for title, words in self.facts.items()) + "."


def steps_words(plan: TrainingPlan) -> str:
    """How many steps there are, and how that comes about."""
    learnt = counted(plan.num_pictures - plan.num_held_out, "picture")
    held = f" ({plan.num_held_out} more held out)" if plan.num_held_out else ""
    at_once = plan.batch_size * plan.accumulation
    batches = f"{plan.batch_size} at once × {plan.accumulation} batches" if plan.accumulation > 1 else ""
    divisor = f"{at_once} a step" + (f" ({batches})" if batches else "")
    return f"{plan.num_steps} = {learnt}{held} × {times(plan.epochs)} ÷ {divisor}"


def times(count: float) -> str:
    """How often, in words."""
    return f"{count:.0f} times" if count >= 10 else f"{count:.3g} times"


def num_looks(plan: TrainingPlan) -> int:
    """How often it is looked at: before, on the way, and at the end."""
    return 1 + math.ceil(plan.num_steps / plan.look_every)


def pictures_a_step(plan: TrainingPlan) -> int:
    """How many pictures go through the UNet for one step, with those of what it knew."""
    return plan.batch_size * plan.accumulation * (2 if plan.num_prior and plan.prior_weight else 1)


def training_disk(
    plan: TrainingPlan, *, values: int, text_bytes: int | None, download_bytes: int, free_bytes: int
) -> TrainingDisk:
    """What a run of `plan` writes: an adapter of so many `values`, captions that take `text_bytes` each once they are
    read (None: they are not kept)."""
    latent = 2 * _LATENT_CHANNELS * (plan.size // _CELL_PX) ** 2
    cache = plan.num_pictures * (latent + _FILE_BYTES) + plan.num_prior * latent
    if text_bytes is not None:
        cache += _num_texts(plan) * (text_bytes + _FILE_BYTES)
    # What is written anew lies beside the old one until it is whole.
    states = values * (2 * (_STATE_BYTES + _BEST_BYTES) + 2 * _EXPORT_BYTES)
    shown = len(plan.sample_prompts) or min(SHOWN_PROMPTS, plan.num_pictures)
    samples = (num_looks(plan) + 1) * shown * plan.size**2 * _PNG_PIXEL_BYTES
    return TrainingDisk(download=download_bytes, cache=cache, states=states, samples=samples, free_bytes=free_bytes)


def _num_texts(plan: TrainingPlan) -> int:
    captions = plan.num_pictures + 1
    if plan.shuffle_tags:  # each order of tags is another text
        captions += plan.num_steps * plan.batch_size * plan.accumulation
    if not plan.text_learning_rate:
        return captions + plan.num_prior + len(plan.sample_prompts)
    return plan.num_prior + (captions if plan.gradual else 0)  # only what is read without the adapter is kept


def find_remedy(plan: TrainingPlan, fits: Callable[[TrainingPlan], bool]) -> TrainingPlan | None:
    """The plan that fits and is least unlike `plan`; None where none does. What learns the same goes first: smaller
    batches, more of them a step. No change is kept that is not needed."""
    steps: list[dict[str, object]] = []
    for change in _savings(plan):
        steps.append(change)
        if fits(_with(plan, steps)):
            break
    else:
        return None
    for change in steps[:-1]:
        fewer = [each for each in steps if each is not change]
        if fits(_with(plan, fewer)):
            steps = fewer
    return _with(plan, steps)


def _savings(plan: TrainingPlan) -> Iterator[dict[str, object]]:
    """Changes that save memory or disk, those that matter least first; a later one of the same field replaces it."""
    together = plan.batch_size * plan.accumulation
    for batch in range(plan.batch_size - 1, 0, -1):
        if together % batch == 0 and together // batch <= 256:
            yield {"batch_size": batch, "accumulation": together // batch}
    if plan.shuffle_tags:
        yield {"shuffle_tags": False}
    if plan.reach == "all":
        yield {"reach": "attention_and_feed_forward"}
    if plan.reach != "attention":
        yield {"reach": "attention"}
    rank = plan.rank // 2
    while rank >= _LEAST_RANK:
        yield {"rank": rank, "alpha": plan.alpha * rank / plan.rank}
        rank //= 2
    if plan.text_learning_rate:
        yield {"text_learning_rate": 0.0}
    for size in range((plan.size - 1) // _PX_STEP * _PX_STEP, max(_LEAST_PX, plan.size // 2) - 1, -_PX_STEP):
        yield {"size": size}


def _with(plan: TrainingPlan, steps: list[dict[str, object]]) -> TrainingPlan:
    merged = {field: value for change in steps for field, value in change.items()}
    return plan.model_copy(update=merged)


def changes(plan: TrainingPlan, other: TrainingPlan) -> str:
    """What sets `other` apart, in words."""
    said: list[str] = []
    if other.batch_size != plan.batch_size:
        batches = f"{other.accumulation} batches a step"
        said.append(f"{counted(other.batch_size, 'picture')} at once and {batches}, which learns the same")
    if other.shuffle_tags != plan.shuffle_tags:
        said.append("tags in the order in which they are")
    if other.reach != plan.reach:
        said.append("attention alone" if other.reach == "attention" else "attention and feed-forward layers alone")
    if other.rank != plan.rank:
        said.append(f"rank {other.rank}")
    if other.text_learning_rate != plan.text_learning_rate:
        said.append("a text encoder that stays as it is (rate 0)")
    if other.size != plan.size:
        said.append(f"pictures of {other.size} px")
    return listed(said)


def size_words(count: int) -> str:
    """`count` bytes as people say it."""
    return gigabytes(count) if count >= 2**30 else f"{max(1, round(count / 2**20))} MB"


def seconds(count: float) -> str:
    """Seconds of one piece of work."""
    return f"{count:.0f} s" if count >= 10 else f"{count:.2g} s"


def span(count: float) -> str:
    """How long something takes as a whole: seconds, minutes or hours."""
    minutes = round(count / 60)
    if count < 90:
        return f"{count:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
