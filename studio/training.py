"""Training LoRAs in the background: what comes of a run is an adapter like any other."""

from collections.abc import Sequence
from pathlib import Path

from lora_registry.store import AdapterStore
from studio.dataset_import import Imported, import_files, import_zip
from studio.dataset_scan import scan
from studio.domain.catalogue import Catalogue
from studio.domain.datasets import Finding, Scan, Verdict
from studio.domain.errors import DatasetError, InvalidRequest, NotFound, OutOfMemory
from studio.domain.run_events import Looked
from studio.domain.stamps import FileStamp, file_stamp
from studio.domain.training import TrainingPlan, TrainingRequest, resolve_training
from studio.domain.training_estimate import Preflight
from studio.generation import EngineHolder
from studio.jobs import JobRunner
from studio.ledger import Ledger
from studio.preflight import PreflightService
from studio.run_service import RunService
from studio.runs import Run
from studio.settings import Settings
from studio.tables import Once

LEAST_PX = 64
"""Of the shorter side: smaller pictures are left out."""
_UPLOADS = "uploads"


def training_items(folder: Path) -> list[tuple[Path, str]]:
    """The pictures of `folder` that a scan finds usable, with their captions ("" for one that has none).

    Raises:
        DatasetError: there is no such folder, or nothing in it can be used.
    """
    found = scan(folder, min_size=LEAST_PX)
    return [(found.folder / verdict.name, verdict.caption) for verdict in _usable(found)]


def _usable(found: Scan) -> tuple[Verdict, ...]:
    """Raises DatasetError where there is nothing."""
    if not found.usable:
        name = found.folder.name
        raise DatasetError(f"Nothing in {name!r} can be learnt from: {found.summary}", "Give other pictures.")
    return found.usable


def _stamps(folder: Path) -> tuple[FileStamp, ...]:
    """Of every file that a scan may look at: in the folder, and in those within it."""
    places = (path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern)))
    return tuple(file_stamp(path) for path in places if path.is_file())


class TrainingService(RunService[TrainingPlan]):
    """Submits trainings, and puts what is best of them among the adapters."""

    KIND = "train"
    PRODUCT = "adapter"

    def __init__(
        self,
        catalogue: Catalogue,
        trainer: JobRunner,
        ledger: Ledger,
        settings: Settings,
        adapters: AdapterStore,
        engine: EngineHolder,
        drawer: JobRunner,
    ) -> None:
        super().__init__(TrainingPlan, trainer, ledger, settings, drawer)
        self._catalogue = catalogue
        self._adapters = adapters
        self._preflights = PreflightService(catalogue, settings, engine)
        self._scanned: tuple[tuple[FileStamp, ...], Scan] | None = None

    def submit(self, request: TrainingRequest, visitor: str = "local", *, once_key: str = "") -> Run[TrainingPlan]:
        """Decide what is open, and begin as soon as no other training runs. A request that comes again with the same
        `once_key` is the run that it was before.

        Raises:
            InvalidRequest: values that do not work, no folder, or a key that stands for something else.
            DatasetError: the folder holds no picture with a caption.
            OutOfMemory, StorageFailed: it takes more memory or disk than there is; nothing is begun.
            QueueFull: too much is waiting.
        """
        once = Once.of(once_key, request)
        if begun := self._begun(visitor, once):
            return begun
        preflight = self.preflight(request)
        if preflight.problem is not None:
            raise preflight.problem
        return self._begin(preflight.plan, visitor, once)

    def preflight(self, request: TrainingRequest, *, is_patient: bool = True) -> Preflight:
        """What would be trained, and what that takes here; see `submit`. Only who `is_patient` waits for the engine
        where memory cannot be told without it."""
        return self._preflights.look(self.plan(request), self.runs.of(), is_patient=is_patient)

    def plan(self, request: TrainingRequest) -> TrainingPlan:
        """What would be trained; see `submit`."""
        if not request.folder:
            raise InvalidRequest(
                "There is nothing to learn from.", "Give pictures: a folder of them, or an upload.", "folder"
            )
        found = self.scan(Path(request.folder))
        shown = {finding for verdict in found.usable for finding in verdict.findings}
        if request.masked and not shown & {Finding.MASKED, Finding.TRANSPARENT}:
            raise InvalidRequest(
                f"No picture of {found.folder.name!r} has a mask, nor is transparent anywhere.",
                "Put masks beside the pictures, as cat.mask.png beside cat.jpg, or learn pictures whole.",
                "masked",
            )
        return resolve_training(request, self._catalogue, len(_usable(found)))

    def scan(self, folder: Path) -> Scan:
        """What there is in `folder`. A page asks again and again: while no file changes, the answer is kept.

        Raises:
            DatasetError: there is no such folder, it cannot be read, or it holds no pictures.
        """
        stamps = _stamps(folder)
        if self._scanned is None or self._scanned[0] != stamps:
            self._scanned = stamps, scan(folder, min_size=LEAST_PX)
        return self._scanned[1]

    def take_in(self, paths: Sequence[Path]) -> Imported:
        """Copy uploaded pictures, captions and lists, or what one zip file holds, into a folder of the studio's own.

        Raises:
            DatasetError: there is no picture among them, too much, or a zip that is made to do harm.
            StorageFailed: the folder cannot be written.
        """
        folder = self._settings.datasets_dir / _UPLOADS / self._ledger.new_id()
        archives = [path for path in paths if path.suffix.lower() == ".zip"]
        if archives and len(paths) > 1:
            raise DatasetError("A zip file came together with other files.", "Give one zip, or the pictures alone.")
        return import_zip(archives[0], folder) if archives else import_files(paths, folder)

    def go_on(self, run_id: str, visitor: str | None = None) -> Run[TrainingPlan]:
        """See `RunService.go_on`.

        Raises:
            OutOfMemory: it takes more memory than there is by now.
        """
        memory = self._preflights.memory(self.run_of(run_id, visitor).plan)
        if memory is not None and not memory.fits:
            raise OutOfMemory(f"This training takes {memory}.", "Close other programs, then go on with it.")
        return super().go_on(run_id, visitor)

    def use_checkpoint(self, run_id: str, step: int) -> str:
        """Put the adapter that a run kept after `step` among the adapters, in place of what it left there before; its
        id.

        Raises:
            NotFound: there is no such run, or it has kept none of that step.
            StorageFailed: it cannot be copied.
        """
        run = self.run_of(run_id)
        path = run.checkpoints.get(step)
        if path is None:
            raise NotFound(f"No checkpoint of step {step} is kept.", "Choose another one.")
        return self._put_forward(run, path, next((look for look in run.looked if look.step == step), None))

    def outlook(self, run: Run[TrainingPlan]) -> str:
        """See `RunService.outlook`."""
        others = [each for each in self.runs.of() if each.id != run.id]
        return self._preflights.look(run.plan, others, is_patient=False).line

    def _offer(self, run: Run[TrainingPlan], path: Path, look: Looked | None) -> str:
        entry = self._adapters.add(path, run.plan.name).entry
        notes = f"Trained on {run.plan.num_pictures} pictures with {run.plan.checkpoint}"
        notes += f"; step {look.step} of {run.plan.num_steps}, {look.words}." if look else "."
        words = (run.plan.trigger,) if run.plan.trigger else ()
        self._adapters.update(entry.id, {"title": run.plan.name, "notes": notes, "trigger_words": words})
        return entry.id

    def _withdraw(self, product_id: str) -> None:
        self._adapters.remove(product_id)
