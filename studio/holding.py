"""A picture that cannot be kept now, since the disk is full or its folder is away, waits until it can: what was drawn
is not thrown away, and what waits in line is not drawn for nothing."""

import logging
import time
from collections.abc import Callable
from itertools import chain, repeat
from typing import Never

from studio.domain.errors import JobCancelled, StorageFailed
from studio.domain.events import Held
from studio.job import Job

logger = logging.getLogger(__name__)

_RETRY_S = (1.0, 1.0, 2.0, 4.0, 8.0)
"""After how many seconds it is tried again, and after the last ones from then on: each try leaves a line in the log."""
_LOOK_S = 0.05

OnStorageFailed = Callable[[StorageFailed], None]
"""Told why something could not be written: returns when it is to be tried again, raises where it is not."""


def at_once(failed: StorageFailed) -> Never:
    """For those who do not wait. Raises what it is given."""
    raise failed


class Holding:
    """Holds `job` where it cannot go on for now, and tells who watches it why. `meanwhile` is called again and again as
    long as that is so."""

    def __init__(self, job: Job, meanwhile: Callable[[], None]) -> None:
        self._job = job
        self._meanwhile = meanwhile
        self._told = ""
        self._pauses = chain(_RETRY_S, repeat(_RETRY_S[-1]))

    def __call__(self, failed: StorageFailed) -> None:
        """Wait a little, for the next try.

        Raises:
            StorageFailed: what it is given, if waiting mends nothing.
            JobCancelled: the job's owner stopped it, or the studio stops.
        """
        if not failed.may_pass:
            raise failed
        began = time.monotonic()
        if failed.hint != self._told:  # its message may count what is free
            logger.warning("job %s is held: %s", self._job.id, failed.message)
            self._job.emit(Held, message=failed.message, hint=failed.hint)
            self._told = failed.hint
        again = began + next(self._pauses)
        while (now := time.monotonic()) < again:
            self._meanwhile()
            if self._job.cancelled():
                raise JobCancelled
            time.sleep(_LOOK_S)
        self._job.held_s += now - began
