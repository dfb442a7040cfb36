"""Training runs on disk: a folder each, with its plan, what it told so far, samples, and what came of it."""

import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from studio.domain.errors import NotFound
from studio.domain.run_events import Looked, RunEvent, Settled, Trained, best_look, event_of
from studio.domain.run_files import CHECKPOINTS, EVENTS, EXPORTS, PLAN, RECORD, SAMPLES, checkpoint_step, is_sample
from studio.files import atomic_write, storage_errors

_ID = re.compile(r"[0-9a-f]{16,64}")


class RunPlan(Protocol):
    """What every kind of run decides; plans are pydantic models."""

    @property
    def name(self) -> str: ...

    @property
    def checkpoint(self) -> str: ...

    @property
    def num_steps(self) -> int: ...

    def model_dump_json(self, *, indent: int | None = None) -> str: ...

    @classmethod
    def model_validate_json(cls, json_data: bytes) -> Self: ...


PlanT = TypeVar("PlanT", bound=RunPlan)


class RunRecord(BaseModel):
    """Whose run it is, which job works on it, and the accelerator or adapter that came of it ("": none yet)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    visitor: str
    created_at: float
    job_id: str = ""
    accelerator_id: str = ""
    adapter_id: str = ""

    @property
    def product_id(self) -> str:
        """Of whatever came of it."""
        return self.accelerator_id or self.adapter_id


@dataclass(frozen=True, kw_only=True)
class Run(Generic[PlanT]):
    """One run, as its folder shows it at this moment."""

    folder: Path
    record: RunRecord
    plan: PlanT
    log: "EventLog"

    @property
    def id(self) -> str:
        return self.record.id

    @cached_property
    def events(self) -> tuple[RunEvent, ...]:
        """Everything it told until now, oldest first."""
        return self.log.read()

    @property
    def silent_s(self) -> float:
        """For how many seconds it has told nothing; 0 before its first word."""
        return self.log.age_s()

    @property
    def step(self) -> int:
        """How many steps are done."""
        return next((event.step for event in reversed(self.events) if isinstance(event, Trained | Settled)), 0)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do: it got to its end, or ended early because it got no better."""
        is_over = self.step >= self.plan.num_steps or any(isinstance(event, Settled) for event in self.events)
        return is_over and bool(self.record.product_id)

    @property
    def trained(self) -> list[Trained]:
        return [event for event in self.events if isinstance(event, Trained)]

    @property
    def looked(self) -> list[Looked]:
        return [event for event in self.events if isinstance(event, Looked)]

    @property
    def best(self) -> Looked | None:
        """See `best_look`."""
        return best_look(self.looked)

    def sample(self, name: str) -> Path | None:
        """The sample of that name (see `studio.domain.run_files`), where there is one."""
        return _there(self.folder / SAMPLES / name) if is_sample(name) else None

    @property
    def checkpoints(self) -> dict[int, Path]:
        """The adapters that are kept of its looks, by their steps in rising order."""
        found = {checkpoint_step(path.name): path for path in (self.folder / CHECKPOINTS).glob("*")}
        return {step: found[step] for step in sorted(step for step in found if step is not None)}

    def export(self, layout: str) -> Path | None:
        """The adapter in a layout, once there is one."""
        return _there(self.folder / EXPORTS[layout])


class EventLog:
    """The file that a run writes its events to, read on from where it was read last. What a stopped run did again after
    its last save is told once, in its later words."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._events: list[RunEvent] = []
        self._last: dict[type[RunEvent], int] = {}
        self._lock = threading.Lock()

    def read(self) -> tuple[RunEvent, ...]:
        """All events, oldest first."""
        with self._lock:
            if self._path.is_file():
                with self._path.open("rb") as file:
                    file.seek(self._offset)
                    whole, end, _ = file.read().rpartition(b"\n")
                self._offset += len(whole) + len(end)
                for line in whole.splitlines():
                    if event := event_of(line):
                        self._add(event)
            return tuple(self._events)

    def age_s(self) -> float:
        """How long ago something was written to it, in seconds; 0 if nothing was."""
        try:
            return max(0.0, time.time() - self._path.stat().st_mtime)
        except OSError:
            return 0.0

    def _add(self, event: RunEvent) -> None:
        kind = type(event)
        if isinstance(event, Trained | Looked):
            if self._last.get(kind, -1) >= event.step:
                self._events = [each for each in self._events if not _is_repeat(each, event)]
            self._last[kind] = event.step
        self._events.append(event)


def _is_repeat(earlier: RunEvent, event: Trained | Looked) -> bool:
    return isinstance(earlier, Trained | Looked) and type(earlier) is type(event) and earlier.step >= event.step


class Runs(Generic[PlanT]):
    """The folder of all runs, of which those show that have a plan of type `plan_type`. Whatever an id says, nothing
    outside is read or written."""

    def __init__(self, root: Path, plan_type: type[PlanT]) -> None:
        self._root = root
        self._plan_type = plan_type
        self._logs: dict[str, EventLog] = {}
        self._plans: dict[str, PlanT] = {}

    def add(self, run_id: str, plan: PlanT, record: RunRecord) -> Run[PlanT]:
        """Make the folder of a new run.

        Raises:
            StorageFailed: it cannot be made.
        """
        folder = self._root / run_id
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / PLAN, plan.model_dump_json(indent=2).encode())
        run = Run(folder=folder, record=record, plan=plan, log=self._log(folder))
        self.keep(run, record)  # last: a folder without it is none yet
        return run

    def get(self, run_id: str) -> Run[PlanT]:
        """Raises NotFound for an id that no run has."""
        folder = self._root / run_id
        try:
            if not _ID.fullmatch(run_id):
                raise OSError(run_id)
            record = RunRecord.model_validate_json((folder / RECORD).read_bytes())
            plan = self._plan(folder)
        except (OSError, ValidationError):
            raise NotFound("There is no such training run.", "It may have been deleted.") from None
        return Run(folder=folder, record=record, plan=plan, log=self._log(folder))

    def keep(self, run: Run[PlanT], record: RunRecord) -> None:
        """Write what is known of a run beside its plan."""
        atomic_write(run.folder / RECORD, record.model_dump_json(indent=2).encode())

    def remove(self, run: Run[PlanT]) -> None:
        """Delete a run's folder for good.

        Raises:
            StorageFailed: it cannot be deleted.
        """
        with storage_errors(run.folder):
            (run.folder / RECORD).unlink(missing_ok=True)  # first: without it, what a crash leaves is no run
            shutil.rmtree(run.folder)
        self._logs.pop(run.folder.name, None)
        self._plans.pop(run.folder.name, None)

    def of(self, visitor: str | None = None) -> tuple[Run[PlanT], ...]:
        """Those of `visitor` (None: of everybody), newest first."""
        found = [run for run in self._all() if visitor in (None, run.record.visitor)]
        return tuple(sorted(found, key=lambda run: run.record.created_at, reverse=True))

    def that_made(self, product_id: str) -> list[Run[PlanT]]:
        """Those that an adapter or accelerator came of, newest first."""
        return [run for run in self.of() if run.record.product_id == product_id]

    def _plan(self, folder: Path) -> PlanT:
        """Read once: a plan never changes, may hold many captions, and a page asks for it again and again."""
        if folder.name not in self._plans:
            self._plans[folder.name] = self._plan_type.model_validate_json((folder / PLAN).read_bytes())
        return self._plans[folder.name]

    def _log(self, folder: Path) -> EventLog:
        return self._logs.setdefault(folder.name, EventLog(folder / EVENTS))

    def _all(self) -> Iterator[Run[PlanT]]:
        if not self._root.is_dir():
            return
        for folder in self._root.iterdir():
            try:
                yield self.get(folder.name)
            except NotFound:
                continue


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None
