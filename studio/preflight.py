"""What a training will take on this machine, told before it begins, and refused where it is more than there is."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from engines.footprint import expected_footprint
from engines.identity import find_place, foreseen
from engines.plans import Means
from engines.system_memory import system_free_bytes
from engines.training.footprint import TrainingTask, choose_training
from engines.training.reach import adapter_values
from studio.domain.catalogue import Catalogue, Checkpoint, Family
from studio.domain.training import TrainingPlan
from studio.domain.training_estimate import (
    Pace,
    Preflight,
    TrainingDisk,
    TrainingMemory,
    find_remedy,
    pictures_a_step,
    training_disk,
)
from studio.generation import EngineHolder
from studio.runs import Run
from studio.settings import PROJECT_ROOT, Settings

DISK_SHARE = 0.95
"""Part of the free disk that a run may fill: others write there, too."""
_TEXT_ITEM_BYTES = 4
"""Of a number of a text that is kept, at most."""


class PreflightService:
    """Plans of trainings against the memory, the disk and the speed of this machine. `engine` knows the first."""

    def __init__(self, catalogue: Catalogue, settings: Settings, engine: EngineHolder) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._engine = engine

    def look(self, plan: TrainingPlan, runs: Sequence[Run[TrainingPlan]], *, is_patient: bool = True) -> Preflight:
        """What `plan` takes, its speed by that of earlier `runs`. Only who `is_patient` waits for the engine where
        memory cannot be told without it.

        Raises:
            CorruptModel, NotFound: the checkpoint is damaged or gone.
        """
        checkpoint = self._catalogue.checkpoint(plan.checkpoint)
        machine = _Machine(self._settings, checkpoint, self._catalogue.family(checkpoint.family))
        means = self._means(checkpoint, is_patient=is_patient)
        disk, memory = machine.disk(plan), machine.memory(plan, means) if means else None

        def fits(other: TrainingPlan) -> bool:
            return machine.disk(other).fits and (means is None or machine.memory(other, means).fits)

        is_fit = disk.fits and (memory is None or memory.fits)
        remedy = None if is_fit else find_remedy(plan, fits)
        return Preflight(plan=plan, memory=memory, disk=disk, pace=measured_pace(plan, runs), remedy=remedy)

    def memory(self, plan: TrainingPlan) -> TrainingMemory | None:
        """What `plan` takes of the memory that is free by now; None while only an engine that is not there knows.

        Raises:
            CorruptModel, NotFound: the checkpoint is damaged or gone.
        """
        means = self._means(self._catalogue.checkpoint(plan.checkpoint), is_patient=False)
        return training_memory(plan, self._catalogue, self._settings, means) if means else None

    def _means(self, checkpoint: Checkpoint, *, is_patient: bool) -> Means | None:
        """What there is to train with; None while only an engine that is not there knows."""
        state = self._engine.state() or foreseen(checkpoint, self._settings.device, self._settings.dtype)
        if state is None and not is_patient:
            return None
        state = state or self._engine.get().state()
        if self._settings.memory_gb:
            free = int(self._settings.memory_gb * 2**30)
        elif state.device == "cpu":
            free = system_free_bytes()
        elif is_patient or self._engine.is_ready:
            free = self._engine.get().free_bytes()
        else:
            return None
        return Means(device=state.device, dtype=checkpoint.number_format(state.dtype), free_bytes=free)


def training_memory(plan: TrainingPlan, catalogue: Catalogue, settings: Settings, means: Means) -> TrainingMemory:
    """How `plan` is to be carried out with `means`, and what that takes.

    Raises:
        CorruptModel, NotFound: the checkpoint is damaged or gone.
    """
    checkpoint = catalogue.checkpoint(plan.checkpoint)
    return _Machine(settings, checkpoint, catalogue.family(checkpoint.family)).memory(plan, means)


class _Machine:
    """What any plan for one checkpoint takes here."""

    def __init__(self, settings: Settings, checkpoint: Checkpoint, family: Family) -> None:
        self._settings = settings
        self._checkpoint = checkpoint
        self._family = family
        self._place = find_place(checkpoint, PROJECT_ROOT, settings.models_dir)
        self._footprint = expected_footprint(checkpoint, family, self._place)

    def memory(self, plan: TrainingPlan, means: Means) -> TrainingMemory:
        """See `choose_training`."""
        task = TrainingTask(
            plan=plan, family=self._family.id, footprint=self._footprint, values=self._adapter_values(plan)
        )
        return choose_training(task, means)

    def disk(self, plan: TrainingPlan) -> TrainingDisk:
        """See `training_disk`."""
        download = 0.0 if self._place else self._checkpoint.download_gb or 0.0
        return training_disk(
            plan,
            values=self._adapter_values(plan),
            text_bytes=None if self._checkpoint.is_pocket else self._text_bytes,
            download_bytes=int(download * 1e9),
            free_bytes=int(_free_disk(self._settings.data_dir) * DISK_SHARE),
        )

    @property
    def _text_bytes(self) -> int:
        return self._family.text_length * self._family.text_width * _TEXT_ITEM_BYTES

    def _adapter_values(self, plan: TrainingPlan) -> int:
        learns_text = bool(plan.text_learning_rate)
        return adapter_values(self._family.id, self._place, plan.reach, plan.rank, learns_text=learns_text)


def measured_pace(plan: TrainingPlan, runs: Sequence[Run[TrainingPlan]]) -> Pace | None:
    """How fast `plan` will go by the run most like it among `runs`, newest first: one of the same checkpoint and size.
    Its steps are taken to take as long as their pictures."""
    alike = [run for run in runs if (run.plan.checkpoint, run.plan.size) == (plan.checkpoint, plan.size)]
    known = [run for run in alike if run.trained and run.trained[-1].step_s]
    if not known:
        return None
    run = min(known, key=lambda run: _unlikeness(plan, run.plan))
    last = run.trained[-1]
    share = pictures_a_step(plan) / pictures_a_step(run.plan)
    return Pace(step_s=last.step_s * share, look_s=last.look_s, source=run.plan.name)


def _unlikeness(plan: TrainingPlan, other: TrainingPlan) -> tuple[float, int]:
    """By how much steps of `other` differ in length: pictures, and then what learns and how."""
    pictures = abs(math.log(pictures_a_step(plan) / pictures_a_step(other)))
    return pictures, sum(one != another for one, another in zip(_manner(plan), _manner(other), strict=True))


def _manner(plan: TrainingPlan) -> tuple[object, ...]:
    return plan.reach, bool(plan.text_learning_rate), plan.decompose, plan.gradual


def _free_disk(folder: Path) -> int:
    """What is free where `folder` is, or is going to be, in bytes."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
