"""What the page's process and the engine's process tell each other, pickled, over the child's standard streams."""

import contextlib
import pickle
import threading
from dataclasses import dataclass
from typing import IO, Any

QUESTIONS = ("state", "plan", "free_bytes", "most_at_once")
"""Methods of `engines.base.Engine` that are answered at once, whatever else is going on."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """Parent to child: do `method` of `engines.base.Engine`."""

    id: int
    method: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Callback:
    """Child to parent: the call `id` calls back and waits for the answer."""

    id: int
    name: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Look:
    """Parent to child, instead of the answer to `on_step`: what does the picture look like so far?"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """To a `Call` by its `id`, and with that of its call to a `Callback` or `Look`: a value, or the error instead. The
    value for `on_step` is whether to stop."""

    id: int
    value: Any = None
    error: Exception | None = None

    def unwrap(self) -> Any:
        """The value; raises the error."""
        if self.error is not None:
            raise self.error
        return self.value


class Stream:
    """One direction: whole messages, from any thread."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Hand `message` over.

        Raises:
            OSError, ValueError: nobody reads any more, or it is closed.
        """
        data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self._file.write(data)
            self._file.flush()

    def close(self) -> None:
        """Let go of the file; what was not handed over is lost."""
        with self._lock, contextlib.suppress(OSError):
            self._file.close()

    def receive(self) -> Any:
        """The next message; one thread at a time.

        Raises:
            EOFError, OSError, pickle.UnpicklingError: the other side is gone, in the middle of a message perhaps.
        """
        return pickle.load(self._file)
