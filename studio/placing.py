"""What lies elsewhere on this machine, made available under a name of ours: by a link, which takes no space, or else by
a whole copy."""

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from engines.hub_files import PICKLE_SUFFIXES
from studio.files import storage_errors

logger = logging.getLogger(__name__)

_PART = ".part"
"""Behind the name of a copy in the making; what a crash left of one is replaced by the next."""


def link_or_copy(source: Path, target: Path) -> bool:
    """Make `source` available as `target`, where nothing may lie yet; True if by a link, False if by a copy. The copy
    of a folder leaves pickles out.

    Raises:
        StorageFailed: `target` is taken, or its folder cannot be written or is full; nothing is left there.
    """
    with storage_errors(target, needed=source.stat().st_size):
        target.parent.mkdir(parents=True, exist_ok=True)
        if _link(source, target):
            return True
        _copy(source, target)
    return False


def is_link(path: Path) -> bool:
    """Whether removing `path` leaves what it stands for where it is: a link, or one of several names of a file."""
    return path.is_symlink() or (path.is_file() and path.stat().st_nlink > 1)


def _link(source: Path, target: Path) -> bool:
    ways: Sequence[Callable[[], None]] = [lambda: os.symlink(source, target, target_is_directory=source.is_dir())]
    if source.is_file():
        ways = [*ways, lambda: os.link(source, target)]
    for way in ways:
        try:
            way()
        except FileExistsError:
            raise
        except OSError as error:  # Windows asks for a privilege; some file systems have no links
            logger.info("%s cannot be linked: %s", target, error)
        else:
            return True
    return False


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(target.name + _PART)
    _discard(part)
    try:
        if source.is_dir():
            pickles = shutil.ignore_patterns(*(f"*{suffix}" for suffix in PICKLE_SUFFIXES))
            shutil.copytree(source, part, ignore=pickles, copy_function=_copy_file)
        else:
            _copy_file(source, part)
        if os.path.lexists(target):  # it came while we copied
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.replace(part, target)
    except BaseException:
        _discard(part)
        raise


def _copy_file(source: str | Path, target: str | Path) -> None:
    shutil.copyfile(source, target)
    with open(target, "rb") as file:
        os.fsync(file.fileno())


def _discard(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
