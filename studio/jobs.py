"""Runs jobs: a line that survives the process, worker threads, and exactly one ending for every job."""

import contextlib
import gc
import itertools
import json
import logging
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any

from studio.domain.errors import JobCancelled, NotFound, OutOfMemory, QueueFull, StudioError
from studio.domain.events import Started
from studio.job import Job
from studio.ledger import Ledger
from studio.limits import NO_LIMITS, Limits
from studio.news import News
from studio.processes import runner_id
from studio.tables import JobRow, JobState, Once
from studio.unexpected import unexpected

logger = logging.getLogger(__name__)

Handler = Callable[[Job], dict[str, Any]]
"""Does a job's work and gives its summary (JSON). Raises JobCancelled soon after `job.cancelled()` turns true. It may
meet images that it recorded before a restart: their ImageReady events are there already."""

_POLL_S = 1.0
"""How often a worker looks for jobs that another process put in line, in seconds."""
_KEPT = 2_000
"""Jobs whose events stay in memory, those that are not over all of them; older ones are told from the ledger, with
indexes of their own. So many that who comes back to a job after its end, as clients do that lost it, goes on
where they were."""
_LOOKED_AT = 64
"""Of the oldest of these, when one is kept."""


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """How a handler ended; "queued" stands for "interrupted, goes on at the next start"."""

    state: JobState
    message: str = ""
    hint: str = ""
    summary: dict[str, Any] | None = None


class JobRunner:
    """Takes the jobs of one queue, each visitor's in turn, and runs as many at a time as it has `workers`. `max_queued`
    of them may wait, and one visitor asks for no more than the `limits` say.

    Without `start` it is a view of the queue: jobs can be submitted, watched and cancelled from any process. Where it
    `keeps_contexts`, a job is done in the context of `contextvars` that it was asked for in, while this process lives.
    """

    def __init__(
        self,
        ledger: Ledger,
        queue: str = "studio",
        max_queued: int = 100,
        limits: Limits = NO_LIMITS,
        *,
        workers: int = 1,
        keeps_contexts: bool = False,
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._max_queued = max_queued
        self._limits = limits
        self._keeps_contexts = keeps_contexts
        self._num_workers = workers
        self._runner_id = runner_id()
        self._handlers: dict[str, Handler] = {}
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._news = News()
        self._stopping = threading.Event()
        self._workers: list[threading.Thread] = []

    @property
    def is_working(self) -> bool:
        """Whether somebody takes jobs here: it was started, and has not ended since."""
        return any(worker.is_alive() for worker in self._workers)

    def register(self, kind: str, handler: Handler) -> None:
        """Say who does jobs of `kind`."""
        self._handlers[kind] = handler

    def start(self) -> None:
        """Put jobs that a dead process left back in line, and begin to work."""
        if self.is_working:
            raise RuntimeError("this runner works already")
        for job_id in self._ledger.requeue_orphans(self._queue):
            logger.info("job %s: waits again after a restart", job_id)
        self._stopping.clear()
        names = (f"jobs-{self._queue}-{number}" for number in range(1, self._num_workers + 1))
        self._workers = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        for worker in self._workers:
            worker.start()

    def stop(self, timeout: float | None = None) -> None:
        """Stop working, within `timeout` seconds for all workers together. Jobs in the middle go back to their places
        in line; their watchers' loops end."""
        self._stopping.set()
        self._news.tell()
        deadline = None if timeout is None else time.monotonic() + timeout
        for worker in self._workers:
            worker.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if worker.is_alive():
                logger.warning("a worker is still busy after %s s; its job is taken up at the next start", timeout)
        with self._lock:
            for job in self._jobs.values():
                job.wake()

    def submit(self, kind: str, payload: dict[str, Any], visitor: str = "local", once: Once | None = None) -> Job:
        """Put a job in line. What `visitor` asked for under the key of `once` before is that job.

        Raises:
            QueueFull: as many wait as may.
            RateLimited: this visitor has asked for more than the limits allow.
            InvalidRequest: the key of `once` stands for something else.
        """
        if once and (earlier := self._ledger.asked_once(visitor, once)):
            return self.job(earlier.id)
        with self._lock:  # no worker may meet the job before its Queued event
            self._check_room(visitor)
            row = self._ledger.add_job(kind, payload, visitor, self._queue, once=once)
            job = self._jobs.get(row.id) or self._keep(row)
            job.context = copy_context() if self._keeps_contexts else None
            job.tell(row)
        logger.info("job %s: %s waits", job.id, kind)
        self._news.tell()
        return job

    @contextlib.contextmanager
    def taking_along(self, job: Job, is_wanted: Callable[[JobRow], bool], most: int) -> Generator[list[Job]]:
        """Waiting jobs of the kind of `job`, `most` of them, which its handler does with it. Inside, `finish` and
        `settle_cancelled` end them; those that did not end go back to their place in line."""
        rows = self._ledger.claim_along(self._queue, self._runner_id, job.kind, is_wanted, most) if most > 0 else []
        with self._lock:
            riders = [self._jobs.get(row.id) or self._keep(row) for row in rows]
        for rider in riders:
            rider.emit(Started)
        try:
            yield riders
        finally:
            for rider in riders:
                if not rider.is_over:
                    with contextlib.suppress(StudioError):  # one that stays behind takes nothing from the others
                        self._ledger.release_job(rider.id)

    def finish(self, job: Job, summary: dict[str, Any]) -> None:
        """End a job that was taken along."""
        job.end(self._ledger.finish_job(job.id, "done", summary=summary))

    def settle_cancelled(self, job: Job) -> None:
        """End a running job whose owner has cancelled it, without waiting for its handler."""
        if not job.is_over and not self._is_interrupted(job):
            job.end(self._ledger.finish_job(job.id, "cancelled"))

    def _check_room(self, visitor: str) -> None:
        waiting = self._ledger.waiting(self._queue)
        if waiting >= self._max_queued:
            raise QueueFull(f"{waiting} jobs are waiting already.", "Wait until some are done, or cancel some.")
        self._limits.check(self._ledger, self._queue, visitor)

    def record(self, kind: str, payload: dict[str, Any], visitor: str, summary: dict[str, Any]) -> JobRow:
        """Write down what was done elsewhere as a job that is over, and never was in line."""
        return self._ledger.add_job(kind, payload, visitor, self._queue, summary)

    def job(self, job_id: str) -> Job:
        """The job of that id, with all its events: live, or told from the ledger.

        Raises:
            NotFound: there is none.
        """
        with self._lock:
            row = self._ledger.job(job_id)
            may_run_here = row.queue == self._queue and not row.is_over and row.runner_id in ("", self._runner_id)
            job = self._jobs.get(job_id)
            if job is None:
                job = self._keep(row) if may_run_here else self._view(row)
                job.tell(row)
            elif row.runner_id != self._runner_id:
                job.tell(row)
        return job

    def row(self, job_id: str) -> JobRow:
        """What the ledger has of a job, without its events. Raises NotFound."""
        return self._ledger.job(job_id)

    def active(self, visitor: str | None) -> list[Job]:
        """What `visitor`, or with None anybody, has waiting or running, oldest first."""
        return [self.job(row.id) for row in self._ledger.active_jobs(visitor)]

    def is_at_work(self) -> bool:
        """Whether somebody, in whatever process, works on a job of this queue; on one that is held nobody does."""
        ids = self._ledger.running(self._queue)
        with self._lock:
            jobs = [self._jobs.get(job_id) for job_id in ids]
        return any(job is None or job.held is None for job in jobs)

    def jobs_ahead(self, job: Job) -> int:
        """How many jobs come before this one."""
        return self._ledger.jobs_ahead(job.id)

    def _view(self, row: JobRow) -> Job:
        return Job(row, self._ledger, self._runner_id, self._stopping)

    def _keep(self, row: JobRow) -> Job:
        self._jobs[row.id] = self._view(row)
        spare = len(self._jobs) - _KEPT
        if spare > 0:
            oldest = itertools.islice(self._jobs.values(), _LOOKED_AT)  # not all: the line may be long
            for job_id in [job.id for job in oldest if job.is_over][:spare]:
                del self._jobs[job_id]
        return self._jobs[row.id]

    def _work(self) -> None:
        while True:
            news = self._news.number
            if self._stopping.is_set():
                return
            try:
                row = self._ledger.claim(self._queue, self._runner_id)
                if row is None:
                    self._news.wait(news, _POLL_S)
                else:
                    self._run(row)
            except Exception:  # the ledger failed: a disk that is full now may have room later
                logger.exception("a worker of %s goes on after an error", self._queue)
                self._stopping.wait(_POLL_S)

    def _run(self, row: JobRow) -> None:
        with self._lock:
            job = self._jobs.get(row.id) or self._keep(row)
        outcome = self._outcome(job, row)
        logger.info("job %s: %s", job.id, outcome.state)
        if outcome.state == "queued":
            self._ledger.release_job(job.id)
            return
        over = replace(row, **vars(outcome))
        try:
            over = self._ledger.finish_job(job.id, **vars(outcome))
        except StudioError:  # who watches is told all the same; the job is looked at again when this process is gone
            logger.exception("job %s: its end could not be recorded", job.id)
        job.end(over)

    def _outcome(self, job: Job, row: JobRow) -> _Outcome:
        try:
            job.tell(row)
            job.emit(Started)
            context, job.context = job.context, None
            handler = self._handler(job.kind)
            summary = context.run(handler, job) if context else handler(job)
            return _Outcome(state="done", summary=json.loads(json.dumps(summary)))
        except JobCancelled:
            return _Outcome(state="queued" if self._is_interrupted(job) else "cancelled")
        except BaseException as error:  # a handler may do anything; its worker must outlive it
            outcome = _failure(job.id, error)
            _let_go(error)
            return outcome

    def _is_interrupted(self, job: Job) -> bool:
        """Whether it was the studio's stop, rather than the owner, that ended a handler."""
        with contextlib.suppress(StudioError):
            if self._ledger.is_cancel_requested(job.id):
                return False
        return self._stopping.is_set()

    def _handler(self, kind: str) -> Handler:
        if kind not in self._handlers:
            raise NotFound(f"Nothing here can do a job of kind {kind!r}.", "Update Flash Studio, or cancel the job.")
        return self._handlers[kind]


def _failure(job_id: str, error: BaseException) -> _Outcome:
    if isinstance(error, MemoryError):
        error = OutOfMemory("The machine ran out of memory.", "Choose a smaller size, or close other programs.")
    if isinstance(error, StudioError):
        logger.warning("job %s: %s: %s", job_id, type(error).__name__, error)
        return _Outcome(state="failed", message=error.message, hint=error.hint)
    told = unexpected(error, f"job {job_id}")
    return _Outcome(state="failed", message=told.message, hint=told.hint)


def _let_go(error: BaseException | None) -> None:
    """Free what the frames of a failed job hold, such as tensors: the log or a cycle may keep the exception itself."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
    gc.collect()
