"""Training runs in the background, whatever they train: begun, gone on with, stopped, deleted, and worked on."""

import logging
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic

from studio.domain.errors import InvalidRequest, JobCancelled, NotFound, TrainingFailed
from studio.domain.events import Progress
from studio.domain.run_events import Broken, Looked, Preparing, Trained
from studio.job import Job
from studio.jobs import JobRunner
from studio.ledger import Ledger
from studio.runs import PlanT, Run, RunRecord, Runs
from studio.settings import Settings
from studio.tables import Once
from studio.training_process import BROKEN, FINISHED, STOPPED, TrainingProcess

logger = logging.getLogger(__name__)

WAITING, PREPARING, TRAINING = "wait", "prepare", "train"
"""Phases of a run's `Progress`."""
_LISTEN_S = 0.25


class RunService(ABC, Generic[PlanT]):
    """Puts runs of one kind into the line of all trainings, and works on them, each in a process. While pictures are
    drawn by the jobs of the `drawer`, training waits: two at once would take longer than one after the other."""

    KIND: ClassVar[str]
    PRODUCT: ClassVar[str]
    """What comes of its runs, as their summary and, with `_id`, their record call it."""

    def __init__(
        self, plan_type: type[PlanT], trainer: JobRunner, ledger: Ledger, settings: Settings, drawer: JobRunner
    ) -> None:
        self.runs = Runs(settings.runs_dir, plan_type)
        self._trainer = trainer
        self._ledger = ledger
        self._settings = settings
        self._drawer = drawer
        trainer.register(self.KIND, self.work)

    @abstractmethod
    def _offer(self, run: Run[PlanT], path: Path, look: Looked | None) -> str:
        """Offer the adapter at `path`, as `look` at `run` found it; its id."""

    @abstractmethod
    def _withdraw(self, product_id: str) -> None:
        """Offer an earlier one no longer; raises NotFound where it was deleted."""

    def go_on(self, run_id: str, visitor: str | None = None) -> Run[PlanT]:
        """Take up a run of `visitor` (None: of anybody) that was stopped or failed where it was saved last.

        Raises:
            NotFound: there is no such run.
            InvalidRequest: it is done, or in line already.
            QueueFull: too much is waiting.
        """
        run = self.run_of(run_id, visitor)
        self._refuse_in_line(run)
        if run.is_done:
            raise InvalidRequest("This run is done.", "Begin another one with more steps.", "run")
        return self._put_in_line(run)

    def stop(self, run_id: str, visitor: str | None = None) -> None:
        """Stop after this step; what is best so far is offered.

        Raises:
            NotFound: as for `go_on`.
        """
        if job := self.job_of(self.run_of(run_id, visitor)):
            job.cancel()

    def delete(self, run_id: str, visitor: str | None = None) -> None:
        """Delete a run for good: its samples, its states and what it learnt from. What came of it stays.

        Raises:
            NotFound: as for `go_on`.
            InvalidRequest: it is in line or running.
        """
        run = self.run_of(run_id, visitor)
        self._refuse_in_line(run)
        self.runs.remove(run)

    def run_of(self, run_id: str, visitor: str | None = None) -> Run[PlanT]:
        """Raises NotFound for an id that no run of `visitor` (None: of anybody) has."""
        run = self.runs.get(run_id)
        if visitor is not None and run.record.visitor != visitor:
            raise NotFound("There is no such training run.", "It may have been deleted.")
        return run

    def outlook(self, run: Run[PlanT]) -> str:
        """What `run` will take, in a line; "" where that is not foreseen."""
        return ""

    def job_of(self, run: Run[PlanT]) -> Job | None:
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
        product = self._land(run)
        if status == STOPPED:
            raise JobCancelled
        return {"run": run_id, self.PRODUCT: product, "step": run.best.step if run.best else 0}

    def _follow(self, job: Job, process: TrainingProcess) -> Broken | None:
        """Tell the watchers of `job` what `process` says, until it ends; gives what it broke at, if it did."""
        problem, step, total = None, 0, 0
        while not process.is_over:
            if job.cancelled():
                process.stop()
            elif process.hold(self._drawer.is_at_work()):
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

    def _refuse_in_line(self, run: Run[PlanT]) -> None:
        job = self.job_of(run)
        if job is not None and not job.is_over:
            raise InvalidRequest("This run is in line already.", "Stop it first.", "run")

    def _begun(self, visitor: str, once: Once | None) -> Run[PlanT] | None:
        """What `visitor` began with the key of `once` before."""
        row = self._ledger.asked_once(visitor, once) if once else None
        return self.runs.get(str(row.payload["run"])) if row else None

    def _begin(self, plan: PlanT, visitor: str, once: Once | None = None) -> Run[PlanT]:
        run_id = self._ledger.new_id()
        record = RunRecord(id=run_id, visitor=visitor, created_at=time.time())
        return self._put_in_line(self.runs.add(run_id, plan, record), once)

    def _put_in_line(self, run: Run[PlanT], once: Once | None = None) -> Run[PlanT]:
        job = self._trainer.submit(self.KIND, {"run": run.id}, run.record.visitor, once)
        if job.payload["run"] != run.id:  # the same request came twice at once, and the other was first
            self.runs.remove(run)
            return self.runs.get(str(job.payload["run"]))
        record = run.record.model_copy(update={"job_id": job.id})
        self.runs.keep(run, record)
        return self.runs.get(run.id)

    def _land(self, run: Run[PlanT]) -> str:
        """Offer what is best of `run`, in place of what it left before; its id, "" where there is nothing yet."""
        path = run.export("kohya")
        return "" if path is None else self._put_forward(run, path, run.best)

    def _put_forward(self, run: Run[PlanT], path: Path, look: Looked | None) -> str:
        """Offer the adapter at `path` in place of what `run` left before; its id."""
        if before := run.record.product_id:
            try:
                self._withdraw(before)
            except NotFound:
                logger.info("%s %s of run %s was deleted", self.PRODUCT, before, run.id)
        made = self._offer(run, path, look)
        self.runs.keep(run, run.record.model_copy(update={f"{self.PRODUCT}_id": made}))
        return made


def _tell(job: Job, step: int, total: int, phase: str, eta_s: float | None = None) -> None:
    job.emit(Progress, step=step, total=total, image_index=0, num_images=1, eta_s=eta_s, phase=phase)
