"""A PostgreSQL server for tests, where its programs and driver are: a cluster of its own, gone afterwards."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PLACES = (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/bin"))
_ACCOUNT = "postgres"
"""It does not run as root; Debian has this account for it."""


def programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; None where they or the driver are missing."""
    found = next((place for place in _PLACES if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)
    return found if importlib.util.find_spec("psycopg") else None


@contextmanager
def running(bin_dir: Path) -> Iterator[str]:
    """The URL of a server that listens on a socket in a folder; a name of a database goes into its `{}`."""
    account = _ACCOUNT if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    user = account if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: a socket's path has 107 characters at most
    try:
        if user:
            shutil.chown(folder, user)

        def do(program: str, *arguments: str) -> None:
            command = [bin_dir / program, "-D", folder / "data", *arguments]
            subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

        do("initdb", "--auth=trust", "--no-sync", "--no-locale", "--encoding=UTF8", f"--username={account}")
        do("pg_ctl", "start", "--wait", "--silent", "-l", f"{folder}/log", "-o", f"-h '' -k {folder} -c fsync=off")
        try:
            yield f"postgresql+psycopg://{account}@/{{}}?host={folder}"
        finally:
            do("pg_ctl", "stop", "--wait", "--silent", "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
