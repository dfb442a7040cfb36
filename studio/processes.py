"""Which process runs a job, and whether it still lives."""

import os
import socket

import psutil

from studio.settings import PROJECT_ROOT

_CLOCK_SLACK_S = 1.0


def runner_id() -> str:
    """This process by name, `host:pid:create_time`: a pid alone may come back as another program's."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def child_environment() -> dict[str, str]:
    """For a Python of ours in a process of its own: it finds the project wherever it was started."""
    path = os.pathsep.join(filter(None, (str(PROJECT_ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def is_dead(runner: str) -> bool:
    """Whether the process that called itself `runner` is known to be gone; never for another host's."""
    host, _, process_name = runner.partition(":")
    if host != socket.gethostname():
        return False
    pid, _, created_at = process_name.partition(":")
    try:
        process = psutil.Process(int(pid))
        is_another = abs(process.create_time() - float(created_at)) > _CLOCK_SLACK_S
        return is_another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
