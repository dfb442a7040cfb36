"""A training's process, seen from the studio: started, listened to, held while pictures are drawn, stopped."""

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from studio.domain.run_events import RunEvent, event_of
from studio.processes import child_environment
from studio.settings import Settings

HOLD, GO_ON, STOP = "hold", "go on", "stop"
"""What may be said to it, a line each."""
FINISHED, STOPPED, BROKEN = 0, 3, 4
"""Its exit statuses."""
SETTINGS = "FLASH_STUDIO_TRAINING_SETTINGS"
"""The variable from which the other processes of a training read the settings."""
_PATIENCE_S = 60.0
"""How long a process that was told to stop may take to save, in seconds, before it is killed."""


class TrainingProcess:
    """Works on the run in `folder`. Use it in a `with` statement: it is gone afterwards."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        command = [sys.executable, "-m", "studio.training_worker", str(folder)]
        first, *others = _environments(settings)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=first
        )
        self._others = [subprocess.Popen(command, stdin=subprocess.DEVNULL, env=each) for each in others]
        self._events: queue.SimpleQueue[RunEvent | None] = queue.SimpleQueue()
        self._is_held = False
        self._say(settings.model_dump_json())
        self._reader = threading.Thread(target=self._read, name="training-events", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        self.wait()
        for other in self._others:  # they learnt with the first, and keep nothing
            other.kill()
            other.wait()
        self._reader.join()
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(OSError):  # what was not read by a process that is gone
            self._process.stdin.close()
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None and self._events.empty()

    def next(self, timeout: float) -> RunEvent | None:
        """What it says next; None if that is nothing for `timeout` seconds, or nothing more."""
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None

    def hold(self, is_held: bool) -> bool:
        """Let it wait before its next step, or go on; tells whether it has to wait from now on."""
        if is_held == self._is_held:
            return False
        self._is_held = is_held
        self._say(HOLD if is_held else GO_ON)
        return is_held

    def stop(self) -> None:
        """Ask it to save what it has and to end."""
        self._say(STOP)

    def wait(self) -> int:
        """The exit status; one that does not end is killed."""
        try:
            return self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _say(self, line: str) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # it is gone; `is_over` says so
            pass

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if event := event_of(line):
                self._events.put(event)
        self._process.wait()
        self._events.put(None)


def _environments(settings: Settings) -> list[dict[str, str]]:
    """What each of the processes that share a training finds in its environment: what `accelerate launch` would put
    there."""
    count, common = settings.training_processes, child_environment()
    if count == 1:
        return [common]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = str(max(1, (os.cpu_count() or 1) // count))
    common = {"OMP_NUM_THREADS": threads, **common, SETTINGS: settings.model_dump_json(), "WORLD_SIZE": str(count)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(count)}
    return [{**common, "RANK": str(index), "LOCAL_RANK": str(index)} for index in range(count)]
