"""One job, as its owner, its handler and its watchers see it."""

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextvars import Context
from typing import Any

from studio.domain.errors import JobCancelled, StorageFailed, StudioError
from studio.domain.events import Cancelled, Event, Failed, Finished, Held, ImageReady, Queued
from studio.ledger import Ledger
from studio.stream import EventStream, EventT
from studio.tables import JobRow

_LOOK_AT_LEDGER_S = 0.5
"""How often a running job asks the ledger whether another process cancelled it, in seconds."""


class Job:
    """A value you can watch: its events can be replayed and waited for, from any thread, as often as you like.

    A job that this process runs tells its own events. What another process did to a job (or this one, before a
    restart) is told from the ledger.
    """

    def __init__(self, row: JobRow, ledger: Ledger, runner_id: str, stopping: threading.Event) -> None:
        self.id = row.id
        self.kind = row.kind
        self.payload = row.payload
        self.visitor = row.visitor
        self.context: Context | None = None
        """What was known where it was asked for, of `contextvars`; None where nobody needs it."""
        self.held_s = 0.0
        """For how long it has been held, in seconds."""
        self._ledger = ledger
        self._runner_id = runner_id
        self._stopping = stopping
        self._cancel = threading.Event()
        self._looked_at = time.monotonic()
        self._stream = EventStream(row.id, stopping.is_set, self._tell_news)

    @property
    def is_watched(self) -> bool:
        """Whether somebody who wants previews iterates over the events at this moment."""
        return self._stream.is_watched

    @property
    def is_over(self) -> bool:
        return self._stream.terminal is not None

    @property
    def held(self) -> Held | None:
        """Why it does not go on at this moment, though it runs: see `studio.holding`."""
        return self._stream.held

    def check_goes_on(self) -> None:
        """For those who would wait with nothing before their eyes.

        Raises:
            StorageFailed: it is held, and nobody knows for how long.
        """
        if held := self.held:
            raise StorageFailed(held.message, held.hint, may_pass=True)

    def cancel(self) -> bool:
        """Ask for the end: at once if the job waits, within a step if it runs. False if it was over already.

        Raises:
            StorageFailed: the ledger cannot be written, and the job is not held for just that.
        """
        try:
            if not self._ledger.request_cancel(self.id):
                return False
        except StorageFailed:
            if self.held is None:
                raise
            self._cancel.set()
            return True
        self._cancel.set()
        row = self._ledger.job(self.id)
        if row.is_over:
            self.end(row)
        return True

    def cancelled(self) -> bool:
        """Whether the handler has to stop now, by raising JobCancelled."""
        if not self._cancel.is_set() and time.monotonic() - self._looked_at > _LOOK_AT_LEDGER_S:
            self._looked_at = time.monotonic()
            with contextlib.suppress(StudioError):  # a ledger that is busy is asked again later
                if self._ledger.is_cancel_requested(self.id):
                    self._cancel.set()
        return self._cancel.is_set() or self._stopping.is_set()

    def emit(self, event_type: type[EventT], **values: Any) -> EventT:
        """Tell the watchers something; `values` are the event's own fields."""
        return self._stream.emit(event_type, **values)

    def events(self, after: int = -1, timeout: float | None = None, previews: bool = True) -> Iterator[Event]:
        """Replay the events with an index above `after` (of Progress only the newest), then wait for new ones.

        Ends with the terminal event. Ends without one when nothing came for `timeout` seconds, or when the studio
        stops: the job goes on at its next start. Without `previews` the engine does not decode them for this reader.
        """
        return self._stream.read(after, timeout, previews)

    def present(self, after: int = -1) -> list[Event]:
        """The events with an index above `after` that are there now. Asks nobody: see `refresh`."""
        return self._stream.present(after)

    def watched(self) -> AbstractContextManager[None]:
        """While it is entered, previews are made for whoever looks at `present`."""
        return self._stream.watched()

    def refresh(self) -> None:
        """Learn what another process did to this job."""
        self._tell_news()

    @property
    def is_paused(self) -> bool:
        """Whether the studio stops; the job goes on at its next start."""
        return self._stopping.is_set()

    def wait(self, timeout: float | None = None) -> Event:
        """The terminal event.

        Raises:
            TimeoutError: there is none after `timeout` seconds, or the studio stopped before.
        """
        terminal = self._stream.wait(timeout)
        if terminal is None:
            raise TimeoutError(f"job {self.id} is not over yet")
        return terminal

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """The summary, waited for.

        Raises:
            StudioError: the job failed; with its message and hint.
            JobCancelled: it was cancelled.
            TimeoutError: as for `wait`.
        """
        match self.wait(timeout):
            case Finished(summary=summary):
                return summary
            case Failed(message=message, hint=hint):
                raise StudioError(message, hint)
            case _:
                raise JobCancelled

    def tell(self, row: JobRow) -> None:
        """Emit what the ledger knows of this job and its events do not say yet."""
        if row.state == "queued" and self._stream.is_waiting:
            ahead = self._ledger.jobs_ahead(self.id)
            if ahead != self._stream.ahead:
                self.emit(Queued, ahead=ahead, wait_s=self._ledger.wait_s(row.queue, ahead))
        for record in self._ledger.images_of_job(self.id):
            self.emit(ImageReady, image_id=record.id, image_index=record.image_index)
        if row.is_over:
            self.end(row)

    def end(self, row: JobRow) -> None:
        """Emit the terminal event of a job that is over, unless it is there already."""
        if row.state == "done":
            self.emit(Finished, summary=row.summary or {})
        elif row.state == "failed":
            self.emit(Failed, message=row.message, hint=row.hint)
        else:
            self.emit(Cancelled)

    def wake(self) -> None:
        """Let watchers notice that the studio stops."""
        self._stream.wake()

    def _tell_news(self) -> None:
        with contextlib.suppress(StudioError):  # a ledger that is busy is asked again later
            row = self._ledger.job(self.id)
            if row.runner_id != self._runner_id:
                self.tell(row)
