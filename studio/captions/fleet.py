"""Several processes at work on one part: each has its own shard, and one that dies is begun again."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import IO

from studio.domain.captions import CaptioningStopped
from studio.processes import child_environment

MAX_RESTARTS = 20
"""So often is a process begun again that was killed: by the system when memory runs out, say."""
_LOOK_S = 0.2
_PATIENCE_S = 90.0


class Worker:
    """A command of ours in a process of its own."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self.restarts = 0
        self._told: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self.process = self._begun()

    def look(self) -> int | None:
        """Its exit code, once it is over for good; one that was killed is begun again."""
        code = self.process.poll()
        if code is not None and code < 0 and self.restarts < MAX_RESTARTS:
            self.restarts += 1
            self.process = self._begun()
            return None
        return code

    @property
    def complaint(self) -> str:
        """The last that it said."""
        self._told.seek(0)
        lines = self._told.read().decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else "It was killed again and again."

    def end(self) -> None:
        """Have it keep what is under way, and end; once it is over, that is all."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._told.close()

    def _begun(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "studio", *self._arguments],
            env=child_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._told,
        )  # fmt: skip


def run_fleet(commands: Sequence[Sequence[str]], on_look: Callable[[], None] = lambda: None) -> tuple[int, int]:
    """Run each of `commands`, the arguments after `python -m studio`, until all are over. `on_look` is called a few
    times a second. Gives how many did not do all of their part, and how many processes were begun again.

    Raises:
        CaptioningStopped: one says that no more can be captioned, or was killed too often.
    """
    workers = [Worker(command) for command in commands]
    try:
        while any(worker.look() is None for worker in workers):
            on_look()
            time.sleep(_LOOK_S)
        on_look()
        stopped = next((each for each in workers if each.look() not in (0, UNFINISHED)), None)
        if stopped is not None:
            raise CaptioningStopped(stopped.complaint)
        unfinished = sum(worker.look() == UNFINISHED for worker in workers)
        return unfinished, sum(worker.restarts for worker in workers)
    finally:
        for worker in workers:
            worker.end()


UNFINISHED = 3
"""The exit code of a worker that came to the end, and could not caption all of its part."""
