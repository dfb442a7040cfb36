"""Which jobs there are: who waits for what, whose turn it is, and what came of it.

A job goes queued → running → done, failed or cancelled, each step in one transaction, so that of any number of runners
and owners exactly one wins. Whoever waits is served in turn: each visitor's first job comes before anybody's second.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import fields
from statistics import median
from typing import Any

from sqlalchemy import Select, and_, func, or_, select, update
from sqlalchemy.orm import Session

from studio.domain.errors import InvalidRequest, NotFound, StorageFailed
from studio.ledger_base import LedgerBase
from studio.processes import is_dead
from studio.tables import WAITING_OR_RUNNING, JobEntry, JobRow, JobState, Once

logger = logging.getLogger(__name__)

_LOOKED_AT = 64
"""Jobs in line among which some are looked for that can be done together."""
_RECENT = 20
"""Jobs by which it is told how long one takes."""

MAX_STARTS = 5
"""A job whose process died this often without an image in between is not run again."""

PASSING = "cli-"
"""Begins the name of a queue whose process never comes back to it, such as a command line's."""


class JobLedger(LedgerBase):
    """The jobs of the database."""

    def add_job(
        self,
        kind: str,
        payload: dict[str, Any],
        visitor: str,
        queue: str,
        summary: dict[str, Any] | None = None,
        once: Once | None = None,
    ) -> JobRow:
        """Put a job into `queue`; with the `summary` of what came of it, it is over already. What `visitor` asked for
        under the key of `once` before is not put there again: its job is given.

        Raises:
            InvalidRequest: that key stands for something else.
        """
        now = time.time()
        entry = JobEntry(
            id=self.new_id(),
            kind=kind,
            payload=payload,
            visitor=visitor,
            queue=queue,
            state="queued" if summary is None else "done",
            created_at=now,
            ended_at=None if summary is None else now,
            summary=summary,
            once_key=once.key if once else None,
            once_sha256=once.sha256 if once else "",
        )
        try:
            with self._writing() as session:
                if once and (earlier := _earlier(session, visitor, once)):
                    return _job_row(earlier)
                entry.turn = _turn(session, queue, visitor)
                session.add(entry)
                session.flush()
                return _job_row(entry)
        except StorageFailed:
            # Where two may write at once, another process may have put the same request there in between.
            if once and (row := self.asked_once(visitor, once)):
                return row
            raise

    def asked_once(self, visitor: str, once: Once) -> JobRow | None:
        """The job that `visitor` asked for under that key before; None if there is none.

        Raises:
            InvalidRequest: the key stands for something else.
        """
        with self._reading() as session:
            earlier = _earlier(session, visitor, once)
            return _job_row(earlier) if earlier else None

    def claim(self, queue: str, runner_id: str) -> JobRow | None:
        """Take the waiting job of `queue` whose turn it is for `runner_id`; None if nothing waits."""
        if not self.waiting(queue):  # asked every second: do not take the write lock for nothing
            return None
        with self._writing() as session:
            entry = session.scalar(_in_turn(queue).limit(1))
            return None if entry is None else _started(entry, runner_id)

    def claim_along(
        self, queue: str, runner_id: str, kind: str, is_wanted: Callable[[JobRow], bool], most: int
    ) -> list[JobRow]:
        """Take waiting jobs of `kind` that are done together with one that runs: those that are wanted, as they come in
        turn, `most` of them; of those in line only the first so many are looked at."""
        first = _in_turn(queue).where(JobEntry.kind == kind).limit(_LOOKED_AT)
        with self._writing() as session:
            wanted = [entry for entry in session.scalars(first) if is_wanted(_job_row(entry))][:most]
            return [_started(entry, runner_id) for entry in wanted]

    def finish_job(
        self, job_id: str, state: JobState, message: str = "", hint: str = "", summary: dict[str, Any] | None = None
    ) -> JobRow:
        """End a job; one that is over already stays as it is."""
        change = update(JobEntry).where(JobEntry.id == job_id, JobEntry.state.in_(WAITING_OR_RUNNING))
        values = {"state": state, "message": message, "hint": hint, "summary": summary, "ended_at": time.time()}
        self._changes(change.values(values))
        return self.job(job_id)

    def release_job(self, job_id: str) -> None:
        """Put a running job back to its old place in line, as if it had not been started."""
        change = update(JobEntry).where(JobEntry.id == job_id, JobEntry.state == "running")
        self._changes(change.values(state="queued", runner_id="", starts=JobEntry.starts - 1))

    def request_cancel(self, job_id: str) -> bool:
        """Ask for a job's end. One that waits is cancelled at once, a running one when its runner looks; False if it
        was over already."""
        of_job = update(JobEntry).where(JobEntry.id == job_id).values(is_cancel_requested=True)
        at_once = of_job.where(JobEntry.state == "queued").values(state="cancelled", ended_at=time.time())
        return self._changes(at_once) or self._changes(of_job.where(JobEntry.state == "running"))

    def is_cancel_requested(self, job_id: str) -> bool:
        with self._reading() as session:
            return bool(session.scalar(select(JobEntry.is_cancel_requested).where(JobEntry.id == job_id)))

    def jobs_ahead(self, job_id: str) -> int:
        """How many jobs of the queue come before this one, with the running one; 0 if it does not wait."""
        place = select(JobEntry.queue, JobEntry.turn, JobEntry.position)
        place = place.where(JobEntry.id == job_id, JobEntry.state == "queued")
        with self._reading() as session:
            own = session.execute(place).one_or_none()
            if own is None:
                return 0
            is_before = or_(JobEntry.turn < own.turn, and_(JobEntry.turn == own.turn, JobEntry.position < own.position))
            is_ahead = or_(JobEntry.state == "running", and_(JobEntry.state == "queued", is_before))
            return session.scalar(select(func.count()).where(JobEntry.queue == own.queue, is_ahead)) or 0

    def waiting(self, queue: str, visitor: str | None = None) -> int:
        """How many jobs of `queue`, or of one `visitor` in it, nobody has started."""
        counted = select(func.count()).where(JobEntry.queue == queue, JobEntry.state == "queued")
        if visitor is not None:
            counted = counted.where(JobEntry.visitor == visitor)
        with self._reading() as session:
            return session.scalar(counted) or 0

    def wait_s(self, queue: str, ahead: int) -> float | None:
        """About how long it takes until `ahead` jobs of `queue` are done, by how long others took and how many are done
        at the same time, in seconds; None where nobody knows yet."""
        if not ahead:
            return 0.0
        usual = self.usual_job_s(queue)
        running = select(func.count()).where(JobEntry.queue == queue, JobEntry.state == "running")
        with self._reading() as session:
            at_once = session.scalar(running) or 1
        return None if usual is None else usual * ahead / at_once

    def usual_job_s(self, queue: str) -> float | None:
        """How long the last jobs of `queue` took: their median in seconds, None where none was done."""
        done = select(JobEntry.ended_at - JobEntry.started_at).where(
            JobEntry.queue == queue, JobEntry.state == "done", JobEntry.started_at.is_not(None)
        )
        with self._reading() as session:
            taken = session.scalars(done.order_by(JobEntry.position.desc()).limit(_RECENT)).all()
        return max(0.0, median(taken)) if taken else None

    def jobs_wait_s(self, visitor: str, most: int, within_s: float) -> float:
        """How long until `visitor` has asked for less than `most` jobs within so many seconds; 0 if that is so now."""
        asked = select(JobEntry.created_at).where(JobEntry.visitor == visitor).order_by(JobEntry.position.desc())
        return self._until_free_s(asked, most, within_s)

    def _until_free_s(self, times: Select[float], most: int, within_s: float) -> float:
        """How long until the last of the newest `most` times is so many seconds ago."""
        with self._reading() as session:
            oldest = session.scalar(times.offset(most - 1).limit(1))
        return 0.0 if oldest is None else max(0.0, oldest + within_s - time.time())

    def running(self, queue: str) -> list[str]:
        """The ids of the jobs of `queue` that somebody works on."""
        with self._reading() as session:
            running = select(JobEntry.id).where(JobEntry.queue == queue, JobEntry.state == "running")
            return list(session.scalars(running))

    def job(self, job_id: str) -> JobRow:
        """Raises NotFound for an id that no job has."""
        with self._reading() as session:
            entry = session.scalar(select(JobEntry).where(JobEntry.id == job_id))
            if entry is None:
                raise NotFound("There is no such job.", "It may have been made with another data folder.")
            return _job_row(entry)

    def active_jobs(self, visitor: str | None) -> list[JobRow]:
        """What `visitor`, or with None anybody, has waiting or running, oldest first."""
        wanted = select(JobEntry).where(JobEntry.state.in_(WAITING_OR_RUNNING))
        wanted = wanted if visitor is None else wanted.where(JobEntry.visitor == visitor)
        with self._reading() as session:
            return [_job_row(entry) for entry in session.scalars(wanted.order_by(JobEntry.position))]

    def requeue_orphans(self, queue: str) -> list[str]:
        """Deal with running jobs whose process is gone; gives the ids of those that wait again in `queue`.

        They keep their place. Those of a passing queue have no runner that comes back, so they end; those of any other
        queue wait for its own.
        Jobs of other hosts are left alone, since their processes cannot be seen from here: a container that shall find
        its jobs again needs a fixed host name.
        """
        requeued: list[str] = []
        with self._writing() as session:
            for entry in session.scalars(select(JobEntry).where(JobEntry.state == "running")).all():
                if is_dead(entry.runner_id) and (entry.queue == queue or entry.queue.startswith(PASSING)):
                    _settle_orphan(entry, queue)
                    requeued += [entry.id] if entry.state == "queued" else []
        return requeued

    def job_counts(self) -> dict[tuple[str, str], int]:
        """How many jobs there are by kind and state."""
        counted = select(JobEntry.kind, JobEntry.state, func.count()).group_by(JobEntry.kind, JobEntry.state)
        with self._reading() as session:
            return {(kind, state): count for kind, state, count in session.execute(counted)}


def _in_turn(queue: str) -> Select[JobEntry]:
    """The waiting jobs of `queue` as their turns come, for whoever takes them. Where two may write at once, the second
    skips the rows that the first has locked; in SQLite it waits before."""
    waiting = select(JobEntry).where(JobEntry.queue == queue, JobEntry.state == "queued")
    return waiting.order_by(JobEntry.turn, JobEntry.position).with_for_update(skip_locked=True)


def _started(entry: JobEntry, runner_id: str) -> JobRow:
    entry.state, entry.runner_id, entry.starts = "running", runner_id, entry.starts + 1
    entry.started_at = time.time()
    return _job_row(entry)


def _turn(session: Session, queue: str, visitor: str) -> int:
    """The turn of the next job of `visitor`: that of who is served now, but after all that `visitor` waits for
    (start-time fair queueing, Goyal et al. 1996, with jobs that all count the same)."""
    in_line = select(func.min(JobEntry.turn)).where(JobEntry.queue == queue, JobEntry.state == "queued")
    own = select(func.max(JobEntry.turn)).where(
        JobEntry.queue == queue, JobEntry.visitor == visitor, JobEntry.state.in_(WAITING_OR_RUNNING)
    )
    latest = session.scalar(own)
    return max(session.scalar(in_line) or 0, 0 if latest is None else latest + 1)


def _earlier(session: Session, visitor: str, once: Once) -> JobEntry | None:
    found = session.scalar(select(JobEntry).where(JobEntry.visitor == visitor, JobEntry.once_key == once.key))
    if found is not None and found.once_sha256 != once.sha256:
        raise InvalidRequest(
            f"The idempotency key {once.key[:40]!r} was used for another request.",
            "Use a new key for each request, and the same one only to ask for the same again.",
            "idempotency_key",
        )
    return found


def _job_row(entry: JobEntry) -> JobRow:
    return JobRow(**{field.name: getattr(entry, field.name) for field in fields(JobRow)})


def _settle_orphan(entry: JobEntry, queue: str) -> None:
    if entry.is_cancel_requested:
        entry.state = "cancelled"
    elif entry.queue != queue:
        entry.state, entry.message = "cancelled", "The program that ran this job was closed."
    elif entry.starts >= MAX_STARTS:
        entry.state, entry.message = "failed", f"The studio died {entry.starts} times while it ran this job."
        entry.hint = "Ask for less at once (a smaller size, fewer pictures); the system's log may say why."
    else:
        entry.state, entry.runner_id = "queued", ""
    if entry.state != "queued":
        entry.ended_at = time.time()
    logger.info("job %s: its runner is gone, so it is %s", entry.id, entry.state)
