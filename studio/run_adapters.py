"""The adapters that are kept of a run's looks: named in a prompt like any other, without being among them."""

import re
from pathlib import Path
from typing import Any

from lora_registry.files import safe_stem
from lora_registry.store import AdapterStore
from studio.domain.run_files import CHECKPOINTS, checkpoint_name, checkpoint_stem
from studio.domain.training import TrainingPlan
from studio.runs import Run, Runs

_ID = re.compile(r".*@(\d+)-([0-9a-f]{8})")
_TELLING = 8
"""Last letters of a run's id, which are random: they tell it from others of its name."""


def checkpoint_adapter(run: Run[Any], step: int) -> str:
    """What the adapter of `run` after `step` is called in a prompt."""
    return f"{safe_stem(run.plan.name)}@{step}-{run.id[-_TELLING:]}"


def training_folder(runs_dir: Path, adapter_id: str) -> Path | None:
    """Where the pictures lie, or lay, that an adapter learnt from: one that a run here made, or keeps. None for any
    other."""
    runs = Runs(runs_dir, TrainingPlan)
    named = _ID.fullmatch(adapter_id)
    kept = [run for run in runs.of() if named and run.id.endswith(named[2]) and int(named[1]) in run.checkpoints]
    found = [*runs.that_made(adapter_id), *kept]
    return Path(found[0].plan.folder) if found else None


class RunAdapters:
    """Finds them in the folder of all runs; nothing there is written to."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        self._stores: dict[Path, AdapterStore] = {}

    def find(self, adapter_id: str) -> tuple[AdapterStore, str] | None:
        """The folder where the adapter lies that a prompt calls `adapter_id`, and its name there; None for one that is
        no run's, or is gone."""
        named = _ID.fullmatch(adapter_id)
        if named is None:
            return None
        step = int(named[1])
        for folder in self._runs_dir.glob(f"*{named[2]}/{CHECKPOINTS}"):
            if (folder / checkpoint_name(step)).is_file():
                return self._stores.setdefault(folder, AdapterStore(folder)), checkpoint_stem(step)
        return None
