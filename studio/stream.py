"""A job's events: kept for whoever comes late, waited for by whoever is early."""

import math
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

from studio.domain.events import TERMINAL, Event, Fetching, Held, ImageReady, Progress, Queued

IDLE_S = 1.0
"""How often a waiting reader looks around (`on_idle`), in seconds."""

EventT = TypeVar("EventT", bound=Event)
_NEWEST = (Fetching, Progress)


class EventStream:
    """Events with rising indexes; the terminal one, of which there is at most one, is the last.

    Only the newest progress, of a download or of a picture, is kept, and the newest place in line, which is told until
    something else happens, as is what keeps it from going on; so a stream stays small however long its job.
    `is_stopped` tells readers that nothing will come for now, `on_idle` is called now and then while they wait.
    """

    def __init__(self, job_id: str, is_stopped: Callable[[], bool], on_idle: Callable[[], None]) -> None:
        self._job_id = job_id
        self._is_stopped = is_stopped
        self._on_idle = on_idle
        self._events: list[Event] = []
        self._images: set[str] = set()
        self._next_index = 0
        self._watchers = 0
        self._changed = threading.Condition()

    @property
    def is_watched(self) -> bool:
        """Whether somebody who wants previews iterates over the events at this moment."""
        return self._watchers > 0

    @property
    def ahead(self) -> int | None:
        """The place in line that was told last; None where none was, or the job began since."""
        with self._changed:
            last = self._last()
            return last.ahead if isinstance(last, Queued) else None

    @property
    def held(self) -> Held | None:
        """What the job waits for at this moment, where that is no place in line."""
        with self._changed:
            last = self._last()
            return last if isinstance(last, Held) else None

    @property
    def is_waiting(self) -> bool:
        """Whether nothing happened yet but waiting."""
        with self._changed:
            return self._is_waiting()

    @property
    def terminal(self) -> Event | None:
        with self._changed:
            return self._terminal()

    def emit(self, event_type: type[EventT], **values: Any) -> EventT:
        """Add an event, unless the stream has ended, tells of that image already, or is past waiting."""
        with self._changed:
            event = event_type(job_id=self._job_id, index=self._next_index, time=time.time(), **values)
            if self._terminal() is None and not self._has_image(event) and not self._is_late(event):
                outdated = (Held, *_NEWEST) if isinstance(event, _NEWEST) else Held  # for it goes on
                self._events = [old for old in self._events if not isinstance(old, outdated)]
                if isinstance(event, Queued):
                    self._events = []
                elif isinstance(event, TERMINAL):
                    self._events = [_small(old) for old in self._events]
                self._events.append(event)
                self._images |= {event.image_id} if isinstance(event, ImageReady) else set()
                self._next_index += 1
                self._changed.notify_all()
            return event

    def present(self, after: int = -1) -> list[Event]:
        """The events with an index above `after` that are there, without waiting."""
        with self._changed:
            after = after if after < self._next_index else -1  # as `read` does
            return self._events[bisect_right(self._events, after, key=lambda event: event.index) :]

    @contextmanager
    def watched(self) -> Generator[None]:
        """Somebody looks at previews in here, though no `read` is going on."""
        with self._changed:
            self._watchers += 1
        try:
            yield
        finally:
            with self._changed:
                self._watchers -= 1

    def wake(self) -> None:
        """Let readers look at `is_stopped` now."""
        with self._changed:
            self._changed.notify_all()

    def read(self, after: int = -1, timeout: float | None = None, previews: bool = True) -> Iterator[Event]:
        """The events with an index above `after`, then new ones as they come, to the terminal one.

        Ends early when the stream is stopped, or when nothing came for `timeout` seconds.
        """
        with self._changed:
            if after >= self._next_index:  # counted in a stream from before a restart
                after = -1
        with self.watched() if previews else nullcontext():
            while (event := self._next(after, timeout)) is not None:
                yield event
                after = event.index

    def wait(self, timeout: float | None = None) -> Event | None:
        """The terminal event, waited for; None after `timeout` seconds or when the stream is stopped."""
        return self._await(self._terminal, timeout)

    def _next(self, after: int, timeout: float | None) -> Event | None:
        def following() -> Event | None:
            place = bisect_right(self._events, after, key=lambda event: event.index)
            return self._events[place] if place < len(self._events) else None

        return self._await(following, timeout)

    def _await(self, look: Callable[[], Event | None], timeout: float | None) -> Event | None:
        """What `look` finds, as soon as it finds something; None when nothing can or may come any more."""
        deadline = time.monotonic() + (math.inf if timeout is None else timeout)

        def is_decided() -> bool:
            return look() is not None or self._terminal() is not None or self._is_stopped()

        left = math.inf
        while left > 0:
            with self._changed:
                left = max(0.0, deadline - time.monotonic())
                if self._changed.wait_for(is_decided, min(IDLE_S, left)):
                    return look()
            self._on_idle()
        with self._changed:
            return look()

    def _has_image(self, event: Event) -> bool:
        return isinstance(event, ImageReady) and event.image_id in self._images

    def _is_late(self, event: Event) -> bool:
        return isinstance(event, Queued) and not self._is_waiting()

    def _is_waiting(self) -> bool:
        return all(isinstance(event, Queued) for event in self._events)

    def _terminal(self) -> Event | None:
        last = self._last()
        return last if isinstance(last, TERMINAL) else None

    def _last(self) -> Event | None:
        return self._events[-1] if self._events else None


def _small(event: Event) -> Event:
    """Of a job that is over many are kept; nobody looks at the preview any more."""
    return replace(event, preview=None) if isinstance(event, Progress) else event
