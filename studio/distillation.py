"""Distillation in the background: its adapters are offered as accelerators at once."""

from pathlib import Path

from studio.dataset_files import read_dataset
from studio.domain.catalogue import Catalogue
from studio.domain.distillation import DistillationPlan, DistillationRequest, resolve_distillation
from studio.domain.run_events import Looked
from studio.jobs import JobRunner
from studio.ledger import Ledger
from studio.own_accelerators import OwnAccelerators
from studio.run_service import RunService
from studio.runs import Run
from studio.settings import Settings


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

    def _offer(self, run: Run[DistillationPlan], path: Path, look: Looked | None) -> str:
        return self._own_accelerators.add(path, run.plan.name).id

    def _withdraw(self, product_id: str) -> None:
        self._own_accelerators.remove(product_id)
