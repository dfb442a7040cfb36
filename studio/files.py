"""Files that are whole or absent: one writer for everything the studio keeps, and a sweep for what a crash left."""

import contextlib
import errno
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from studio.domain.errors import StorageFailed

logger = logging.getLogger(__name__)

PARTIAL_PREFIX = ".tmp"
"""safetensors starts its own temporary files in the same way, so one sweep finds both."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_MISSING = (errno.ENOENT, errno.ENOTDIR)


def atomic_write(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a reader, or a crash at any instant, meets the old file or the new one.

    Raises:
        StorageFailed: the disk is full, the folder is missing or cannot be written; the old file is intact.
    """
    partial = path.with_name(f"{PARTIAL_PREFIX}-{secrets.token_hex(8)}")
    with storage_errors(path, needed=len(data)):
        try:
            _write_and_sync(partial, data)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in, so that they outlive a power cut with what is written there.

    Raises:
        StorageFailed: it cannot be made.
    """
    with storage_errors(folder):
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for made in reversed(missing):
            sync_folder(made.parent)


def sweep_partials(folder: Path, older_than_s: float = 3600) -> int:
    """Remove the temporary files that a crash left anywhere under `folder`; gives the bytes freed.

    Younger ones stay: another process may be writing them at this moment.
    """
    limit = time.time() - older_than_s
    freed = 0
    with storage_errors(folder):
        for partial in folder.rglob(f"{PARTIAL_PREFIX}*"):
            with contextlib.suppress(FileNotFoundError):  # its writer has just finished
                status = partial.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_mtime <= limit:
                    partial.unlink()
                    freed += status.st_size
    if freed:
        logger.info("swept unfinished files: %d bytes freed", freed)
    return freed


@contextmanager
def storage_errors(path: Path, needed: int = 0) -> Generator[None]:
    """Turn an OSError about `path` into a StorageFailed with a next step. The whole path goes to the log only."""
    try:
        yield
    except OSError as error:
        logger.warning("storage failed at %s: %s", path, error)
        raise _explained(error, path, needed) from error


def _write_and_sync(path: Path, data: bytes) -> None:
    # O_CREAT with 0o666 leaves the mode to the umask; tempfile would make every picture private to this user (0600).
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut."""
    if os.name != "posix":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no such call
            raise
    finally:
        os.close(descriptor)


def _explained(error: OSError, path: Path, needed: int) -> StorageFailed:
    if error.errno in _DISK_FULL:
        return StorageFailed(
            f"The disk is full: {path.name!r} needs {_megabytes(needed)}, {_free_space(path.parent)} is free.",
            "Free some space.",
            may_pass=True,
        )
    if error.errno == errno.EFBIG:
        return StorageFailed(
            f"{path.name!r} needs {_megabytes(needed)}, more than a file may have here.",
            "Raise the limit (ulimit -f) or choose another data folder.",
        )
    if error.errno in _READ_ONLY:
        return StorageFailed(
            f"The folder {path.parent.name!r} cannot be written.",
            "Give yourself write permission, or choose another data folder (FLASH_STUDIO_DATA_DIR).",
            may_pass=True,
        )
    if error.errno in _MISSING:
        return StorageFailed(
            f"The folder {path.parent.name!r} is missing.",
            "Put it back, or restart the studio to make a new one.",
            may_pass=True,
        )
    return StorageFailed(
        f"{path.name!r} could not be stored: {error.strerror or 'the system does not say why'}.",
        "Check the disk that holds the data folder, then try again.",
    )


def _free_space(folder: Path) -> str:
    try:
        return _megabytes(shutil.disk_usage(folder).free)
    except OSError:
        return "an unknown amount"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
