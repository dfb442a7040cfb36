"""The services as one command uses them, and nobody else."""

import contextlib
import os
import secrets
import sys
from collections.abc import Generator

from studio.generation import EngineHolder
from studio.job_ledger import PASSING
from studio.services import Services, open_services
from studio.settings import Settings


@contextlib.contextmanager
def passing_services(settings: Settings, engine: EngineHolder | None) -> Generator[Services]:
    """Open them with a line of their own: a running studio must not take the job, nor a later command that gets the
    same process id. What a library prints goes to standard error: it must not come between the paths, nor into JSON."""
    queue = f"{PASSING}{os.getpid()}-{secrets.token_hex(4)}"
    with contextlib.redirect_stdout(sys.stderr), open_services(settings, queue, engine) as services:
        yield services
