"""The adapters that are kept of a run's looks: named in a prompt like any other, without being among them."""

import re
from pathlib import Path
from typing import Any

from lora_registry.files import safe_stem
from lora_registry.store import AdapterStore
from studio.domain.run_files import CHECKPOINTS, checkpoint_name, checkpoint_stem
from studio.runs import Run

_ID = re.compile(r".*@(\d+)-([0-9a-f]{8})")
_TELLING = 8
"""Last letters of a run's id, which are random: they tell it from others of its name."""


def checkpoint_adapter(run: Run[Any], step: int) -> str:
    """What the adapter of `run` after `step` is called in a prompt."""
    return f"{safe_stem(run.plan.name)}@{step}-{run.id[-_TELLING:]}"


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
