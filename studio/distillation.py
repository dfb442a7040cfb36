"""Distillation in the background: runs are begun, gone on with, stopped, and their adapters offered at once."""

import logging
import time
from pathlib import Path
from typing import Any

from studio.dataset_files import read_dataset
from studio.domain.catalogue import Catalogue
from studio.domain.distillation import DistillationPlan, DistillationRequest, resolve_distillation
from studio.domain.errors import InvalidRequest, JobCancelled, NotFound, TrainingFailed
from studio.domain.events import Progress
from studio.domain.run_events import Broken, Preparing, Trained
from studio.job import Job
from studio.jobs import JobRunner
from studio.ledger import Ledger
from studio.own_accelerators import OwnAccelerators
from studio.runs import Run, RunRecord, Runs
from studio.settings import Settings
from studio.training_process import BROKEN, FINISHED, STOPPED, TrainingProcess

logger = logging.getLogger(__name__)

KIND = "distil"
WAITING, PREPARING, TRAINING = "wait", "prepare", "train"
"""Phases of a run's `Progress`."""
_LISTEN_S = 0.25


class DistillationService:
    """Submits training runs to a line of their own, and works on them, each in a process. While pictures are drawn by
    the jobs of `drawing_queue`, training waits: two at once would take longer than one after the other."""

    def __init__(
        self,
        catalogue: Catalogue,
        trainer: JobRunner,
        ledger: Ledger,
        settings: Settings,
        own_accelerators: OwnAccelerators,
        drawing_queue: str,
    ) -> None:
        self.runs = Runs(settings.runs_dir)
        self._catalogue = catalogue
        self._trainer = trainer
        self._ledger = ledger
        self._settings = settings
        self._own_accelerators = own_accelerators
        self._drawing_queue = drawing_queue
        trainer.register(KIND, self.work)

    def submit(self, request: DistillationRequest, visitor: str = "local") -> Run:
        """Decide what is open, and begin as soon as no other training runs.

        Raises:
            InvalidRequest: values that do not work, or nothing to learn from.
            DatasetError: the folder holds no picture with a caption.
            QueueFull: too much is waiting.
        """
        return self.begin(resolve_distillation(request, self._catalogue), visitor)

    def begin(self, plan: DistillationPlan, visitor: str = "local") -> Run:
        """Begin what is decided already; see `submit`."""
        if plan.folder:
            found = read_dataset(Path(plan.folder))
            plan = plan.model_copy(update={"num_pictures": len(found.items)})
        run_id = self._ledger.new_id()
        record = RunRecord(id=run_id, visitor=visitor, created_at=time.time())
        return self._put_in_line(self.runs.add(run_id, plan, record))

    def go_on(self, run_id: str, visitor: str | None = None) -> Run:
        """Take up a run of `visitor` (None: of anybody) that was stopped or failed where it was saved last.

        Raises:
            NotFound: there is no such run.
            InvalidRequest: it is done, or in line already.
            QueueFull: too much is waiting.
        """
        run = self.run_of(run_id, visitor)
        self._refuse_in_line(run)
        if run.step >= run.plan.num_steps and run.record.accelerator_id:
            raise InvalidRequest("This run is done.", "Begin another one with more steps.", "run")
        return self._put_in_line(run)

    def stop(self, run_id: str, visitor: str | None = None) -> None:
        """Stop after this step; what is best so far becomes an accelerator.

        Raises:
            NotFound: as for `go_on`.
        """
        if job := self.job_of(self.run_of(run_id, visitor)):
            job.cancel()

    def delete(self, run_id: str, visitor: str | None = None) -> None:
        """Delete a run for good: its samples, its states and what it learnt from. An accelerator that came of it stays.

        Raises:
            NotFound: as for `go_on`.
            InvalidRequest: it is in line or running.
        """
        run = self.run_of(run_id, visitor)
        self._refuse_in_line(run)
        self.runs.remove(run)

    def run_of(self, run_id: str, visitor: str | None = None) -> Run:
        """Raises NotFound for an id that no run of `visitor` (None: of anybody) has."""
        run = self.runs.get(run_id)
        if visitor is not None and run.record.visitor != visitor:
            raise NotFound("There is no such training run.", "It may have been deleted.")
        return run

    def job_of(self, run: Run) -> Job | None:
        """The job that works on `run`, or did so last."""
        try:
            return self._trainer.job(run.record.job_id) if run.record.job_id else None
        except NotFound:
            return None

    def work(self, job: Job) -> dict[str, Any]:
        """Go on with the run of `job` to its end; the job handler. A process that dies is started anew, as often as it
        gets further than before."""
        run_id = str(job.payload["run"])
        reached = -1
        while True:
            run = self.runs.get(run_id)
            if job.cancelled():
                raise JobCancelled
            with TrainingProcess(self._settings, run.folder) as process:
                problem = self._follow(job, process)
                status = process.wait()
            run = self.runs.get(run_id)
            if status in (FINISHED, STOPPED):
                break
            if status == BROKEN and problem is not None:
                self._land(run)
                raise TrainingFailed(problem.message, problem.hint)
            logger.warning("the process of run %s ended with status %d at step %d", run_id, status, run.step)
            if run.step <= reached:
                raise TrainingFailed(
                    f"The training's process ended with status {status}, twice at step {run.step}.",
                    "If memory was short, take fewer pictures a step; the log says more.",
                )
            reached = run.step
        if status == STOPPED and not self._ledger.is_cancel_requested(job.id):
            raise JobCancelled  # the studio stops: the run goes on at its next start
        accelerator = self._land(run)
        if status == STOPPED:
            raise JobCancelled
        return {"run": run_id, "accelerator": accelerator, "step": run.best.step if run.best else 0}

    def _follow(self, job: Job, process: TrainingProcess) -> Broken | None:
        """Tell the watchers of `job` what `process` says, until it ends; gives what it broke at, if it did."""
        problem, step, total = None, 0, 0
        while not process.is_over:
            if job.cancelled():
                process.stop()
            elif process.hold(self._ledger.is_running(self._drawing_queue)):
                _tell(job, step, total, WAITING)
            match process.next(_LISTEN_S):
                case Trained(step=step, total=total, step_s=step_s):
                    _tell(job, step, total, TRAINING, (total - step) * step_s)
                case Preparing(done=step, total=total):
                    _tell(job, step, total, PREPARING)
                case Broken() as problem:
                    pass
                case _:
                    pass
        return problem

    def _refuse_in_line(self, run: Run) -> None:
        job = self.job_of(run)
        if job is not None and not job.is_over:
            raise InvalidRequest("This run is in line already.", "Stop it first.", "run")

    def _put_in_line(self, run: Run) -> Run:
        job = self._trainer.submit(KIND, {"run": run.id}, run.record.visitor)
        record = run.record.model_copy(update={"job_id": job.id})
        self.runs.keep(run, record)
        return self.runs.get(run.id)

    def _land(self, run: Run) -> str:
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


def _tell(job: Job, step: int, total: int, phase: str, eta_s: float | None = None) -> None:
    job.emit(Progress, step=step, total=total, image_index=0, num_images=1, eta_s=eta_s, phase=phase)
