"""Progress of pictures in the making, for whoever watches their job."""

import io
import math
import time
from collections.abc import Callable, Sequence

from PIL import Image

from engines.base import Step
from studio.domain.events import Fetching, Progress
from studio.job import Job

PREVIEW_QUALITY = 85
PREVIEW_SHARE = 0.1
"""Share of the time that previews may take: a quick picture shows fewer of them rather than becoming slow."""
PAUSE_S = 0.05
"""A step that follows sooner than this upon one that was told is not told: nobody would see it, and each wakes every
watcher beside the work, which cost a miniature's four steps 2 to 3 ms of 120."""


class StepReporter:
    """Tells a job's watchers of its steps: the first of each picture, then as many as `PAUSE_S` lets through.

    `done` of the pictures were there before this run. `work` is how much each of them takes, in whatever unit; without,
    they are taken for equal. `together` of them are in the making at once.
    """

    def __init__(self, job: Job, num_images: int = 1, done: int = 0, work: Sequence[float] | None = None) -> None:
        self._job = job
        self._pace = _Pace(work or [1.0] * num_images, done, lambda: time.monotonic() - job.held_s)
        self._previews = _Previews()
        self._fetch: tuple[float, int] | None = None
        self._told_at = -math.inf

    def fetching(self, done_bytes: int, total_bytes: int) -> None:
        """Tell of the weights on their way; the pace is that since the first word of them, so a resumed part counts
        for nothing."""
        now = time.monotonic()
        started, first = self._fetch = self._fetch or (now, done_bytes)
        pace = (done_bytes - first) / (now - started) if now > started else 0.0
        eta_s = round((total_bytes - done_bytes) / pace, 1) if pace > 0 else None
        self._job.emit(Fetching, done_bytes=done_bytes, total_bytes=total_bytes, eta_s=eta_s)

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        if step.step > 1 and now < self._told_at + PAUSE_S:
            return
        self._told_at = now
        self._job.emit(
            Progress,
            step=step.step,
            total=step.total,
            image_index=self._pace.image_index,
            num_images=self._pace.num_images,
            eta_s=self._pace.eta_s(step),
            phase="denoise" if step.step < step.total else "decode",
            preview=self._previews.take(step) if self._job.is_watched else None,
        )

    @property
    def elapsed_s(self) -> float:
        return self._pace.elapsed_s

    @property
    def together(self) -> int:
        return self._pace.together

    @together.setter
    def together(self, number: int) -> None:
        self._pace.together = number

    def image_done(self) -> None:
        """Count a finished picture."""
        self._pace.image_index += 1


class _Previews:
    """Makes previews as often as `PREVIEW_SHARE` of the time allows, each picture's first at once."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._last = b""

    def take(self, step: Step) -> bytes:
        """The picture so far as a JPEG, or the last one again while that is fresh."""
        started = time.monotonic()
        if step.step == 1 or started >= self._next_at:
            self._last = _jpeg(step.preview())
            now = time.monotonic()
            self._next_at = now + (now - started) * (1 / PREVIEW_SHARE - 1)
        return self._last


class _Pace:
    """Counts pictures and estimates the time left from the pace since this run's first step (loading not counted), or
    since a picture was begun again. Its `clock` (in seconds) stands while nothing is done."""

    def __init__(self, work: Sequence[float], done: int, clock: Callable[[], float]) -> None:
        self.image_index = done
        self.together = 1
        self._work = work
        self._clock = clock
        self._started = clock()
        self._since: tuple[float, float] | None = None
        self._done = 0.0

    @property
    def num_images(self) -> int:
        return len(self._work)

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._started

    def eta_s(self, step: Step) -> float | None:
        """Seconds left after `step` of the present picture; None while there is nothing to go by."""
        now = self._clock()
        finished, current = self._work[: self.image_index], self._work[self.image_index :][: self.together]
        before, self._done = self._done, sum(finished) + sum(current) * step.step / step.total
        if self._since is None or self._done <= before:
            self._since = now, self._done
            return None
        started, first = self._since
        return round((now - started) / (self._done - first) * (sum(self._work) - self._done), 1)


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=PREVIEW_QUALITY)
    return buffer.getvalue()
