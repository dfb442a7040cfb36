"""One at a time for each of any number of things, in this process."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from studio.domain.errors import JobCancelled

_LOOK_S = 0.1


class Turns:
    """Who does something that another one does already waits until that is done."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._changed = threading.Condition()

    @contextmanager
    def of(self, key: str, cancelled: Callable[[], bool]) -> Generator[bool]:
        """Have what `key` names for oneself. Gives whether another one had it before.

        Raises:
            JobCancelled: soon after `cancelled()` turned true, while another one had it.
        """
        has_waited = False
        with self._changed:
            while key in self._taken:
                has_waited = True
                self._changed.wait(_LOOK_S)
                if cancelled():
                    raise JobCancelled
            self._taken.add(key)
        try:
            yield has_waited
        finally:
            with self._changed:
                self._taken.remove(key)
                self._changed.notify_all()
