"""Distillation in the background: its adapters are offered as accelerators at once."""

import logging
from pathlib import Path

from studio.dataset_files import read_dataset
from studio.domain.catalogue import Catalogue
from studio.domain.distillation import DistillationPlan, DistillationRequest, resolve_distillation
from studio.domain.errors import NotFound
from studio.jobs import JobRunner
from studio.ledger import Ledger
from studio.own_accelerators import OwnAccelerators
from studio.run_service import RunService
from studio.runs import Run
from studio.settings import Settings

logger = logging.getLogger(__name__)


class DistillationService(RunService[DistillationPlan]):
    """Submits distillations, and offers what comes of them."""

    KIND = "distil"
    PRODUCT = "accelerator"

    def __init__(
        self,
        catalogue: Catalogue,
        trainer: JobRunner,
        ledger: Ledger,
        settings: Settings,
        own_accelerators: OwnAccelerators,
        drawing_queue: str,
    ) -> None:
        super().__init__(DistillationPlan, trainer, ledger, settings, drawing_queue)
        self._catalogue = catalogue
        self._own_accelerators = own_accelerators

    def submit(self, request: DistillationRequest, visitor: str = "local") -> Run[DistillationPlan]:
        """Decide what is open, and begin as soon as no other training runs.

        Raises:
            InvalidRequest: values that do not work, or nothing to learn from.
            DatasetError: the folder holds no picture with a caption.
            QueueFull: too much is waiting.
        """
        return self.begin(resolve_distillation(request, self._catalogue), visitor)

    def begin(self, plan: DistillationPlan, visitor: str = "local") -> Run[DistillationPlan]:
        """Begin what is decided already; see `submit`."""
        if plan.folder:
            found = read_dataset(Path(plan.folder))
            plan = plan.model_copy(update={"num_pictures": len(found.items)})
        return self._begin(plan, visitor)

    def _land(self, run: Run[DistillationPlan]) -> str:
        """Offer the run's best adapter, in place of one that it left before; "" where it has none yet."""
        path = run.export("kohya")
        if path is None:
            return ""
        if before := run.record.accelerator_id:
            try:
                self._own_accelerators.remove(before)
            except NotFound:
                logger.info("accelerator %s of run %s was deleted", before, run.id)
        row = self._own_accelerators.add(path, run.plan.name)
        self.runs.keep(run, run.record.model_copy(update={"accelerator_id": row.id}))
        return row.id
