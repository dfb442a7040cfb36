"""The line between a training and whoever watches it."""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from studio.domain.run_events import RunEvent, Trained

_TELL_EVERY_S = 1.0
_LAST = 20


@dataclass(frozen=True, kw_only=True)
class Control:
    """`check` is called before each piece of work: it may wait, and may raise."""

    check: Callable[[], None]
    tell: Callable[[RunEvent], None]


class Pace:
    """Tells of steps, once a second: their mean loss since the last word, and what one of the last took.

    `total` steps in all, each of so many `images`. `look_s` is what the last look at samples took.
    """

    def __init__(self, control: Control, total: int, images: int) -> None:
        self.look_s: float | None = None
        self._control = control
        self._total = total
        self._images = images
        self._losses: list[float] = []
        self._seconds: deque[float] = deque(maxlen=_LAST)
        self._told_at = 0.0
        self._started = time.monotonic()

    def begin(self) -> None:
        """A step begins now: what passed before, waiting or looking, is none of its time."""
        self._started = time.monotonic()

    def note(self, step: int, loss: float, rate: float | None = None) -> None:
        """Step `step` is done, at learning rate `rate`. A loss that ran over is not told."""
        now = time.monotonic()
        self._losses += [loss] if math.isfinite(loss) else []
        self._seconds.append(now - self._started)
        if not self._losses or (now - self._told_at < _TELL_EVERY_S and step != self._total):
            return
        step_s = statistics.median(self._seconds)
        told = Trained(
            step=step,
            total=self._total,
            loss=statistics.fmean(self._losses),
            step_s=step_s,
            rate=rate,
            images_s=self._images / step_s if step_s else None,
            memory_mb=round(psutil.Process().memory_info().rss / 2**20, 1),
            look_s=self.look_s,
        )
        self._control.tell(told)
        self._losses.clear()
        self._told_at = now
