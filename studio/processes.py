"""Which process runs a job, and whether it still lives."""

import os
import socket
from pathlib import Path

import psutil

from studio.settings import PROJECT_ROOT

_CLOCK_SLACK_S = 1.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_TICKS = 19
"""Where /proc/PID/stat has them, behind the program's name (proc(5), field 22)."""


def runner_id() -> str:
    """This process by name, `host:pid:beginning`: a pid alone may come back as another program's."""
    return f"{socket.gethostname()}:{os.getpid()}:{_beginning(psutil.Process())}"


def child_environment() -> dict[str, str]:
    """For a Python of ours in a process of its own: it finds the project wherever it was started."""
    path = os.pathsep.join(filter(None, (str(PROJECT_ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def is_dead(runner: str) -> bool:
    """Whether the process that called itself `runner` is known to be gone; never for another host's."""
    host, _, process_name = runner.partition(":")
    if host != socket.gethostname():
        return False
    pid, _, began = process_name.partition(":")
    try:
        process = psutil.Process(int(pid))
        if "/" in began:
            is_another = began != _beginning(process)
        else:
            is_another = abs(process.create_time() - float(began)) > _CLOCK_SLACK_S
        return is_another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _beginning(process: psutil.Process) -> str:
    """When a process began: in ticks since that boot of the machine, since a time of day changes with the clock."""
    try:
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[_START_TICKS]
        return f"{_BOOT_ID.read_text().strip()}/{ticks}"
    except OSError:  # not on Linux, or not allowed
        return f"{process.create_time():.2f}"
