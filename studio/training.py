"""Training LoRAs in the background: what comes of a run is an adapter like any other."""

import logging
from collections.abc import Sequence
from pathlib import Path

from lora_registry.store import AdapterStore
from studio.dataset_import import Imported, import_files, import_zip
from studio.dataset_scan import scan
from studio.domain.catalogue import Catalogue
from studio.domain.errors import DatasetError, InvalidRequest, NotFound
from studio.domain.training import TrainingPlan, TrainingRequest, resolve_training
from studio.jobs import JobRunner
from studio.ledger import Ledger
from studio.run_service import RunService
from studio.runs import Run
from studio.settings import Settings

logger = logging.getLogger(__name__)

LEAST_PX = 64
"""Of the shorter side: smaller pictures are left out."""
_UPLOADS = "uploads"


def training_items(folder: Path) -> list[tuple[Path, str]]:
    """The pictures of `folder` that a scan finds usable, with their captions ("" for one that has none).

    Raises:
        DatasetError: there is no such folder, or nothing in it can be used.
    """
    found = scan(folder, min_size=LEAST_PX)
    if not found.usable:
        raise DatasetError(f"Nothing in {folder.name!r} can be learnt from: {found.summary}", "Give other pictures.")
    return [(found.folder / verdict.name, verdict.caption) for verdict in found.usable]


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
        drawing_queue: str,
    ) -> None:
        super().__init__(TrainingPlan, trainer, ledger, settings, drawing_queue)
        self._catalogue = catalogue
        self._adapters = adapters

    def submit(self, request: TrainingRequest, visitor: str = "local") -> Run[TrainingPlan]:
        """Decide what is open, and begin as soon as no other training runs.

        Raises:
            InvalidRequest: values that do not work, or no folder.
            DatasetError: the folder holds no picture with a caption.
            QueueFull: too much is waiting.
        """
        return self._begin(self.plan(request), visitor)

    def plan(self, request: TrainingRequest) -> TrainingPlan:
        """What would be trained; see `submit`."""
        if not request.folder:
            raise InvalidRequest(
                "There is nothing to learn from.", "Give pictures: a folder of them, or an upload.", "folder"
            )
        return resolve_training(request, self._catalogue, len(training_items(Path(request.folder))))

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

    def _land(self, run: Run[TrainingPlan]) -> str:
        path = run.export("kohya")
        if path is None:
            return ""
        if before := run.record.adapter_id:
            try:
                self._adapters.remove(before)
            except NotFound:
                logger.info("adapter %s of run %s was deleted", before, run.id)
        entry = self._adapters.add(path, run.plan.name).entry
        best = run.best
        notes = f"Trained on {run.plan.num_pictures} pictures with {run.plan.checkpoint}"
        notes += f"; step {best.step} of {run.plan.num_steps}, {best.words}." if best else "."
        words = (run.plan.trigger,) if run.plan.trigger else ()
        self._adapters.update(entry.id, {"title": run.plan.name, "notes": notes, "trigger_words": words})
        self.runs.keep(run, run.record.model_copy(update={"adapter_id": entry.id}))
        return entry.id
