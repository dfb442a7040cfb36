"""The engine in a process of its own, seen from the page: what kills the one does not touch the other.

A driver that loses the GPU, a library that crashes, a system out of memory: each takes the process that it happens in
along. The page stays, the engine is started anew, and what it was doing is done once more.
"""

import logging
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psutil

from engines.base import EngineState
from studio.conversation import Conversation, ProcessGone
from studio.domain.errors import GenerationFailed, JobCancelled
from studio.engine_messages import Stream
from studio.processes import child_environment
from studio.remote_engine import RemoteEngine
from studio.settings import Settings

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "studio.engine_worker")
_SUSPENDED_S = 5.0
"""A process that somebody suspended for so long, and not this one with it, is ended: nobody may go on with it."""


class EngineProcess(RemoteEngine):
    """An `Engine` whose work another process does.

    Raises:
        StudioError: the engine cannot be had under these settings.
        GenerationFailed: its process ends as soon as it is started.
    """

    def __init__(self, settings: Settings, command: Sequence[str] = COMMAND) -> None:
        self._settings = settings
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._is_closed = False
        self._child = self._start()

    @property
    def pid(self) -> int:
        """Of the process that computes now."""
        return self._child.pid

    def state(self) -> EngineState:
        """See `engines.base.Engine.state`; between two processes nothing is loaded."""
        child = self._child
        try:
            return child.call("state", (), {})
        except ProcessGone:
            return child.first_state

    def close(self) -> None:
        """End the process. One that is not closed ends with this process."""
        self._is_closed = True
        self._child.end()

    def _do(self, method: str, args: tuple[Any, ...], callbacks: Mapping[str, Callable[..., Any]]) -> Any:
        try:
            return self._living().call(method, args, callbacks)
        except ProcessGone as gone:
            if self._is_closed:
                raise JobCancelled from None
            logger.warning("the engine's process %s during %s; it is started anew", gone, method)
        try:
            return self._living().call(method, args, callbacks)
        except ProcessGone as gone:
            raise hopeless(f"{gone}, twice in a row") from None

    def _living(self) -> "_Child":
        with self._lock:
            if self._child.is_gone:
                self._child = self._start()
            return self._child

    def _start(self) -> "_Child":
        try:
            return _Child(self._command, self._settings)
        except ProcessGone as gone:
            raise hopeless(f"{gone} before it was ready") from None


def hopeless(end: str) -> GenerationFailed:
    """What is said of a process that ended in that way and cannot be replaced."""
    return GenerationFailed(
        f"The process that draws {end}; the log says more.",
        "If memory was short, ask for a smaller picture or close other programs; if the GPU failed, restart the "
        "machine or set FLASH_STUDIO_DEVICE=cpu.",
    )


class _Child(Conversation):
    """A process of ours, over its standard streams."""

    def __init__(self, command: Sequence[str], settings: Settings) -> None:
        super().__init__()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()
        )
        assert self._process.stdin and self._process.stdout
        self._outgoing, self._incoming = Stream(self._process.stdin), Stream(self._process.stdout)
        self._reader = threading.Thread(target=self._read, name="engine-messages", daemon=True)
        self._reader.start()
        self.first_state: EngineState = self.call("hello", (settings,), {})

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> None:
        self._process.kill()
        self._reader.join()

    def _deliver(self, message: object) -> None:
        self._outgoing.send(message)

    def _watch(self) -> Callable[[], None]:
        suspended_at: float | None = None

        def look() -> None:
            nonlocal suspended_at
            now = time.monotonic()
            suspended_at = (suspended_at or now) if self._is_suspended() else None
            if suspended_at is not None and now - suspended_at >= _SUSPENDED_S:
                logger.warning("the engine's process has been suspended for %.0f s; it is ended", now - suspended_at)
                self._process.kill()  # the reader notices, and tells everybody who waits

        return look

    def _is_suspended(self) -> bool:
        try:
            return psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False

    def _read(self) -> None:
        try:
            while True:
                self._received(self._incoming.receive())
        except (EOFError, OSError, pickle.UnpicklingError):
            self._ended()
            self._process.wait()
            self._incoming.close()
            self._outgoing.close()

    def _how_it_ended(self) -> str:
        status = self._process.wait()
        return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
