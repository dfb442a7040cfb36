"""Telling whether a file is still the one that was read, without reading it again."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_COARSEST_NS = 2_000_000_000
"""File systems note the time of a change by a clock of their own: every 4 to 10 ms on Linux, every 2 s on FAT."""


@dataclass(frozen=True)
class FileStamp:
    """Equal stamps of one path: nothing was written to it in between.

    `asked_ns` is 0 except for a file so young that a second write could leave everything else as it is. Such a stamp
    equals no later one, so what was read then is read once more.
    """

    path: str
    num_bytes: int
    changed_ns: int
    status_ns: int
    inode: int
    asked_ns: int


def file_stamp(path: Path) -> FileStamp:
    """The stamp of the file at `path` as it is now.

    Raises:
        OSError: it is not there.
    """
    status = os.stat(path)
    now = time.time_ns()
    is_young = abs(now - max(status.st_mtime_ns, status.st_ctime_ns)) <= _COARSEST_NS
    return FileStamp(
        path=str(path),
        num_bytes=status.st_size,
        changed_ns=status.st_mtime_ns,
        status_ns=status.st_ctime_ns,
        inode=status.st_ino,
        asked_ns=now if is_young else 0,
    )
