"""The app in a process of its own, as somebody starts it."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from studio.settings import PROJECT_ROOT

_START_S = 180
_END_S = 90


@dataclass(frozen=True, kw_only=True)
class RunningApp:
    """`url` has no slash at its end; `said` is what it prints after its address."""

    url: str
    pid: int
    said: IO[str]


@contextmanager
def running_app(data_dir: Path, **environment: str) -> Iterator[RunningApp]:
    """`app.py` on a free port, with that data folder; what it says is in `app.log` there. It is stopped as by a service
    manager, and has to end in peace."""
    data_dir.mkdir(parents=True, exist_ok=True)
    own = {"FLASH_STUDIO_DATA_DIR": str(data_dir), "GRADIO_TEMP_DIR": str(data_dir / "tmp")}
    with (
        (data_dir / "app.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "app.py", "--port", "0"],
            cwd=PROJECT_ROOT,
            env={**os.environ, **own, **environment},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        watchdog = threading.Timer(_START_S, process.kill)
        watchdog.start()
        assert process.stdout is not None
        address = re.search(r"http://[^\s/]+", process.stdout.readline())
        watchdog.cancel()
        assert address, (data_dir / "app.log").read_text()
        yield RunningApp(url=address[0], pid=process.pid, said=process.stdout)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=_END_S) == 0, (data_dir / "app.log").read_text()
