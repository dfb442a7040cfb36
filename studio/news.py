"""Wakes workers that wait for something to do: whoever looked before the news came does not sleep through it."""

import threading


class News:
    """A number that goes up with each piece of news. A worker notes it, looks for work, and if there was none waits
    until it is another one; of several workers each does so for itself."""

    def __init__(self) -> None:
        self._number = 0
        self._changed = threading.Condition()

    @property
    def number(self) -> int:
        return self._number

    def tell(self) -> None:
        """Wake all who wait."""
        with self._changed:
            self._number += 1
            self._changed.notify_all()

    def wait(self, seen: int, timeout: float) -> None:
        """Wait until there is news since the number was `seen`, `timeout` seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._number != seen, timeout)
