"""Files of captions that only grow: one process writes to a shard, any number read it.

A line is written whole before its caption counts as made. A crash cuts at most the last line, which the next writer
removes; whoever reads meanwhile takes lines that have an end only.
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from studio.domain.captions import Row, row_of
from studio.domain.errors import CaptionsInUse, DatasetError
from studio.files import storage_errors

logger = logging.getLogger(__name__)

SUFFIX = ".jsonl"
_LOCK_SUFFIX = ".lock"
_ENDING_SUFFIX = ".ending"
_LOOK_S, _PATIENCE_S, _ENDING_S = 0.05, 0.5, 90.0
"""How often the lock is tried, and how long at most; the last where who has it is ending."""
_SYNC_ROWS, _SYNC_S = 64, 2.0
"""Captions that cost nothing are brought to the disk so many, or so many seconds, at a time."""


class Shard:
    """A shard that this process alone writes to. Use it in a `with` statement."""

    def __init__(self, path: Path, *, is_paid: bool) -> None:
        """`is_paid`: each row is on the disk before the next caption is made; a loss of power costs nothing then.

        Raises:
            CaptionsInUse: another process writes to it.
            StorageFailed: it cannot be written.
        """
        self.path = path
        self._is_paid = is_paid
        self._unsynced, self._synced_at = 0, time.monotonic()
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path.with_suffix(_LOCK_SUFFIX), thread_local=False)
            self._acquire()
            try:
                self._file: FileIO = self._opened()
            except BaseException:
                self._lock.release()
                raise

    def __enter__(self) -> "Shard":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, row: Row) -> None:
        """Keep a row; when this returns, it outlives this process.

        Raises:
            StorageFailed: it cannot be written; nothing of it stays.
        """
        with storage_errors(self.path, needed=4096):
            start = self._file.seek(0, os.SEEK_END)
            left = memoryview(row.line())
            try:
                while left:  # a disk that fills up takes a part of it, and refuses the next
                    left = left[self._file.write(left) :]
            except OSError:
                self._file.truncate(start)  # half a line would spoil the next one
                raise
            self._unsynced += 1
            is_due = self._unsynced >= _SYNC_ROWS or time.monotonic() - self._synced_at >= _SYNC_S
            if self._is_paid or is_due:
                self._sync()

    def close(self) -> None:
        """Bring all to the disk and let others write. Raises StorageFailed."""
        try:
            with storage_errors(self.path):
                self._sync()
                self._file.close()
        finally:
            self._lock.release()

    @staticmethod
    def tell_ending(path: Path) -> None:
        """Say that who writes to this shard ends as soon as what is under way is kept: others may wait for it."""
        with contextlib.suppress(OSError):
            path.with_suffix(_ENDING_SUFFIX).touch()

    def _acquire(self) -> None:
        """Take the lock, at once or when somebody who is ending has left it."""
        ending, began = self.path.with_suffix(_ENDING_SUFFIX), time.monotonic()
        while not self._lock.is_locked:
            try:
                self._lock.acquire(timeout=_LOOK_S)
            except Timeout:
                patience = _ENDING_S if ending.exists() else _PATIENCE_S
                if time.monotonic() - began > patience:
                    raise CaptionsInUse(
                        f"Another process is at work on {self.path.stem!r}.",
                        "Wait for it, or give this one another part (--shard or --start and --end).",
                    ) from None
        ending.unlink(missing_ok=True)

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._unsynced, self._synced_at = 0, time.monotonic()

    def _opened(self) -> FileIO:
        file = self.path.open("ab+", buffering=0)  # what is refused must not stay in a buffer
        size = file.seek(0, os.SEEK_END)
        whole = _last_end(file, size)
        if whole < size:
            file.seek(whole)
            if _is_row(file.read(size - whole)):
                file.write(b"\n")  # only its end was cut off
            else:
                logger.warning("%s: %d bytes of a line that was cut short are removed", self.path.name, size - whole)
                file.truncate(whole)
        file.seek(0, os.SEEK_END)
        return file


@dataclass(frozen=True, kw_only=True)
class BadLine:
    """A line that holds no row: in which file, which one, and why not."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"Line {self.line} of {self.file} is left out: {self.why}."


@dataclass
class Reading:
    """The rows of shards, one after the other, with what could not be read. Counted so that they add up:
    `num_lines` = rows given + `bad`."""

    folders: Sequence[Path]
    num_lines: int = 0
    num_files: int = 0
    bad: list[BadLine] = field(default_factory=list[BadLine])

    def rows(self) -> Iterator[Row]:
        """Every row of every shard, in no order that means anything.

        Raises:
            DatasetError: a folder is missing or cannot be read.
        """
        for folder in self.folders:
            for path in shard_files(folder):
                self.num_files += 1
                try:
                    with path.open("rb") as file:
                        yield from self._rows_in(file, path.name)
                except OSError as error:
                    raise DatasetError(
                        f"{path.name} cannot be read: {error.strerror}.", "Check its permissions."
                    ) from error

    def _rows_in(self, file: BinaryIO, name: str) -> Iterator[Row]:
        for number, line in enumerate(file, start=1):
            if line.isspace():
                continue
            self.num_lines += 1
            try:
                yield row_of(line)
            except ValueError as error:
                self.bad.append(BadLine(file=name, line=number, why=str(error)))


def shard_files(folder: Path) -> list[Path]:
    """The shards in a folder, by name.

    Raises:
        DatasetError: there is no such folder.
    """
    if not folder.is_dir():
        raise DatasetError(
            f"There is no folder of shards {folder.name!r}.", "Make captions first, or give the folder with --shards."
        )
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file())


class Tail:
    """The rows that come into the shards of a folder, from whichever process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def rows(self) -> Iterator[Row]:
        """What came since the last call; lines without an end yet are left for the next. Raises StorageFailed."""
        if not self._folder.is_dir():
            return
        for path in shard_files(self._folder):
            start = self._read.get(path, 0)
            with storage_errors(path):
                if path.stat().st_size <= start:
                    continue
                with path.open("rb") as file:
                    file.seek(start)
                    yield from self._rows_in(file, path)

    def _rows_in(self, file: BinaryIO, path: Path) -> Iterator[Row]:
        for line in file:
            if not line.endswith(b"\n"):
                return
            self._read[path] = self._read.get(path, 0) + len(line)
            try:
                yield row_of(line)
            except ValueError:  # told when they are merged or verified
                continue


def _last_end(file: FileIO, size: int) -> int:
    """Where the last whole line of a file ends."""
    block = 1 << 16
    while size > 0:
        start = max(0, size - block)
        file.seek(start)
        found = file.read(size - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0


def _is_row(text: bytes) -> bool:
    try:
        row_of(text)
    except ValueError:
        return False
    return True
