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
from studio.tables import Once


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
        drawer: JobRunner,
    ) -> None:
        super().__init__(DistillationPlan, trainer, ledger, settings, drawer)
        self._catalogue = catalogue
        self._own_accelerators = own_accelerators

    def submit(
        self, request: DistillationRequest, visitor: str = "local", *, once_key: str = ""
    ) -> Run[DistillationPlan]:
        """Decide what is open, and begin as soon as no other training runs. A request that comes again with the same
        `once_key` is the run that it was before.

        Raises:
            InvalidRequest: values that do not work, nothing to learn from, or a key that stands for something else.
            DatasetError: the folder holds no picture with a caption.
            QueueFull: too much is waiting.
        """
        once = Once.of(once_key, request)
        return self._begun(visitor, once) or self.begin(resolve_distillation(request, self._catalogue), visitor, once)

    def begin(self, plan: DistillationPlan, visitor: str = "local", once: Once | None = None) -> Run[DistillationPlan]:
        """Begin what is decided already; see `submit`."""
        if plan.folder:
            found = read_dataset(Path(plan.folder))
            plan = plan.model_copy(update={"num_pictures": len(found.items)})
        return self._begin(plan, visitor, once)

    def _offer(self, run: Run[DistillationPlan], path: Path, look: Looked | None) -> str:
        return self._own_accelerators.add(path, run.plan.name).id

    def _withdraw(self, product_id: str) -> None:
        self._own_accelerators.remove(product_id)
