"""The studio's memory: which jobs there are and which images were made, in one database.

A job goes queued → running → done, failed or cancelled, each step in one transaction, so that of any number of runners
and owners exactly one wins. Every method may be called from every thread.
"""

import logging
import secrets
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any, cast

from sqlalchemy import CursorResult, UpdateBase, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from studio.database import database_errors, open_database, writing
from studio.domain.errors import NotFound
from studio.domain.images import ImageRecord, recipe_sha256
from studio.domain.request import ResolvedRequest
from studio.domain.scores import Score
from studio.processes import is_dead
from studio.search import conditions, search_text
from studio.tables import (
    WAITING_OR_RUNNING,
    ImageEntry,
    JobEntry,
    JobRow,
    JobState,
    ReusedEntry,
    ScoreEntry,
    WeightsEntry,
)

logger = logging.getLogger(__name__)

MAX_STARTS = 5
"""A job whose process died this often without an image in between is not run again."""

PASSING = "cli-"
"""Begins the name of a queue whose process never comes back to it, such as a command line's."""


class Ledger:
    """The database behind `url` (any that SQLAlchemy knows; SQLite needs a file)."""

    def __init__(self, url: str) -> None:
        self._engine = open_database(url)
        self._writing_engine = writing(self._engine)
        # SQLite has one writer at a time. Threads that wait here are served at once; its own waiting is by polling.
        self._write_lock = threading.Lock()
        self._last_id = 0

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def new_id(self) -> str:
        """A name that sorts after all earlier ones of this ledger and that nobody can guess (128 random bits)."""
        with self._write_lock:
            self._last_id = max(self._last_id + 1, time.time_ns())
            return f"{self._last_id:016x}{secrets.token_hex(16)}"

    # Jobs

    def add_job(self, kind: str, payload: dict[str, Any], visitor: str, queue: str) -> JobRow:
        """Put a job at the end of `queue`."""
        entry = JobEntry(
            id=self.new_id(),
            kind=kind,
            payload=payload,
            visitor=visitor,
            queue=queue,
            state="queued",
            created_at=time.time(),
        )
        with self._writing() as session:
            session.add(entry)
            session.flush()
            return _job_row(entry)

    def claim(self, queue: str, runner_id: str) -> JobRow | None:
        """Take the oldest waiting job of `queue` for `runner_id`; None if nothing waits."""
        if not self.waiting(queue):  # asked every second: do not take the write lock for nothing
            return None
        waiting = select(JobEntry).where(JobEntry.queue == queue, JobEntry.state == "queued")
        # Where two may write at once, the second skips the row that the first has locked; in SQLite it waits before.
        oldest = waiting.order_by(JobEntry.position).limit(1).with_for_update(skip_locked=True)
        with self._writing() as session:
            entry = session.scalar(oldest)
            if entry is None:
                return None
            entry.state, entry.runner_id, entry.starts = "running", runner_id, entry.starts + 1
            return _job_row(entry)

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
        place = select(JobEntry.queue, JobEntry.position).where(JobEntry.id == job_id, JobEntry.state == "queued")
        with self._reading() as session:
            own = session.execute(place).one_or_none()
            if own is None:
                return 0
            is_ahead = JobEntry.queue == own.queue, JobEntry.position < own.position
            ahead = select(func.count()).where(*is_ahead, JobEntry.state.in_(WAITING_OR_RUNNING))
            return session.scalar(ahead) or 0

    def waiting(self, queue: str) -> int:
        """How many jobs of `queue` nobody has started."""
        with self._reading() as session:
            counted = select(func.count()).where(JobEntry.queue == queue, JobEntry.state == "queued")
            return session.scalar(counted) or 0

    def is_running(self, queue: str) -> bool:
        """Whether somebody works on a job of `queue`."""
        with self._reading() as session:
            running = select(JobEntry.id).where(JobEntry.queue == queue, JobEntry.state == "running").limit(1)
            return session.scalar(running) is not None

    def job(self, job_id: str) -> JobRow:
        """Raises NotFound for an id that no job has."""
        with self._reading() as session:
            entry = session.scalar(select(JobEntry).where(JobEntry.id == job_id))
            if entry is None:
                raise NotFound("There is no such job.", "It may have been made with another data folder.")
            return _job_row(entry)

    def active_jobs(self, visitor: str) -> list[JobRow]:
        """What `visitor` has waiting or running, oldest first."""
        wanted = select(JobEntry).where(JobEntry.visitor == visitor, JobEntry.state.in_(WAITING_OR_RUNNING))
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

    # Images

    def add_image(self, record: ImageRecord) -> ImageRecord:
        """Record an image. If one with its id, or with its job and index, is there, that one stays and is given."""
        same_place = and_(ImageEntry.job_id == record.job_id, ImageEntry.image_index == record.image_index)
        with self._writing() as session:
            existing = session.scalar(select(ImageEntry).where(or_(ImageEntry.id == record.id, same_place)).limit(1))
            if existing is not None:
                return _image_record(existing)
            session.add(_image_entry(record))
            session.execute(update(JobEntry).where(JobEntry.id == record.job_id).values(starts=0))
            return record

    def image(self, image_id: str) -> ImageRecord:
        """Raises NotFound for an id that no image has."""
        with self._reading() as session:
            entry = session.get(ImageEntry, image_id)
            if entry is None:
                raise NotFound("There is no such picture.", "It may have been deleted.")
            return _image_record(entry)

    def images_of_job(self, job_id: str) -> list[ImageRecord]:
        """What a job has so far, by index: what it made, and what it reuses, with the index that it has in this job."""
        made = select(ImageEntry).where(ImageEntry.job_id == job_id)
        reused = select(ImageEntry, ReusedEntry.image_index).join(ReusedEntry, ReusedEntry.image_id == ImageEntry.id)
        with self._reading() as session:
            found = [_image_record(entry) for entry in session.scalars(made)]
            for entry, index in session.execute(reused.where(ReusedEntry.job_id == job_id)):
                found.append(_image_record(entry).model_copy(update={"image_index": index}))
        return sorted(found, key=lambda record: record.image_index)

    def images_of_recipe(
        self, recipe: ResolvedRequest, prompt_as_run: str, negative_as_run: str, visitor: str
    ) -> list[ImageRecord]:
        """What `visitor` has of exactly this recipe and these texts, newest first."""
        name = recipe_sha256(recipe, prompt_as_run, negative_as_run)
        wanted = select(ImageEntry).where(ImageEntry.recipe_sha256 == name, ImageEntry.visitor == visitor)
        with self._reading() as session:
            return [_image_record(entry) for entry in session.scalars(wanted.order_by(ImageEntry.id.desc()))]

    def reuse_image(self, job_id: str, image_index: int, image_id: str) -> bool:
        """Let a picture of an earlier job count as one of this job's; False if it is gone."""
        with self._writing() as session:
            if session.get(ImageEntry, image_id) is None:
                return False
            session.merge(ReusedEntry(job_id=job_id, image_index=image_index, image_id=image_id))
            return True

    def image_paths(self) -> dict[str, str]:
        """Where every image lies: path → id."""
        with self._reading() as session:
            return {path: image_id for path, image_id in session.execute(select(ImageEntry.path, ImageEntry.id))}

    def search(
        self,
        text: str = "",
        filters: dict[str, Any] | None = None,
        starred: bool | None = None,
        limit: int = 48,
        offset: int = 0,
        visitor: str | None = None,
        compared: bool | None = None,
    ) -> list[ImageRecord]:
        """Images that fit a search (see `studio.search`), newest first; of `visitor` only, if given, and without
        those of evaluations where `compared` is False.

        Raises:
            InvalidRequest: a filter that no picture can have.
        """
        wanted = select(ImageEntry).where(*conditions(text, filters, starred, visitor, compared))
        with self._reading() as session:
            found = session.scalars(wanted.order_by(ImageEntry.id.desc()).limit(limit).offset(offset))
            return [_image_record(entry) for entry in found]

    def count(
        self,
        text: str = "",
        filters: dict[str, Any] | None = None,
        starred: bool | None = None,
        visitor: str | None = None,
        compared: bool | None = None,
    ) -> int:
        """How many images `search` would give without its limit."""
        wanted = select(func.count()).select_from(ImageEntry)
        wanted = wanted.where(*conditions(text, filters, starred, visitor, compared))
        with self._reading() as session:
            return session.scalar(wanted) or 0

    def set_starred(self, image_id: str, is_starred: bool) -> None:
        """Raises NotFound for an id that no image has."""
        if not self._changes(update(ImageEntry).where(ImageEntry.id == image_id).values(is_starred=is_starred)):
            self.image(image_id)

    def remove_image(self, image_id: str) -> None:
        """Forget an image; nothing happens if it is not there."""
        self._changes(delete(ImageEntry).where(ImageEntry.id == image_id))

    # Scores

    def keep_score(self, image_id: str, score: Score) -> None:
        """Remember what a judge said of a picture, in place of what it said before; nothing if the picture is gone."""
        with self._writing() as session:
            if session.get(ImageEntry, image_id) is not None:
                session.merge(ScoreEntry(image_id=image_id, **asdict(score)))

    def scores(self, job_id: str) -> dict[str, list[Score]]:
        """What judges said of the pictures that a job made, by the id of the picture."""
        wanted = select(ScoreEntry).join(ImageEntry, ImageEntry.id == ScoreEntry.image_id)
        told: dict[str, list[Score]] = {}
        with self._reading() as session:
            for entry in session.scalars(wanted.where(ImageEntry.job_id == job_id)):
                values = {field.name: getattr(entry, field.name) for field in fields(Score)}
                told.setdefault(entry.image_id, []).append(Score(**values))
        return told

    # Weights

    def weights_sha256(self, stamp: str) -> str | None:
        """The hash of the weights that have this stamp, if they were read before."""
        with self._reading() as session:
            entry = session.get(WeightsEntry, stamp)
            return entry and entry.sha256

    def keep_weights_sha256(self, stamp: str, sha256: str) -> None:
        """Remember a hash: reading gigabytes takes seconds."""
        with self._writing() as session:
            session.merge(WeightsEntry(stamp=stamp, sha256=sha256))

    # Transactions

    @contextmanager
    def _reading(self) -> Generator[Session]:
        with database_errors(), Session(self._engine) as session:
            yield session

    @contextmanager
    def _writing(self) -> Generator[Session]:
        with self._write_lock, database_errors(), Session(self._writing_engine) as session, session.begin():
            yield session

    def _changes(self, statement: UpdateBase) -> bool:
        """Run a statement in a transaction of its own; whether it found a row."""
        with self._writing() as session:
            return cast(CursorResult[Any], session.execute(statement)).rowcount > 0


def _job_row(entry: JobEntry) -> JobRow:
    return JobRow(**{field.name: getattr(entry, field.name) for field in fields(JobRow)})


def _image_entry(record: ImageRecord) -> ImageEntry:
    name = recipe_sha256(record.recipe, record.prompt_as_run, record.negative_as_run)
    return ImageEntry(**record.model_dump(mode="json"), search_text=search_text(record), recipe_sha256=name)


def _image_record(entry: ImageEntry) -> ImageRecord:
    return ImageRecord(**{field: getattr(entry, field) for field in ImageRecord.model_fields})


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
