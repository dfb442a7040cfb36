"""A model of what a disk keeps when the power goes: what was synced, and nothing else.

Contents of a file count from its `fsync`, names in a folder (new, renamed, made) from that of the folder.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """Sees what the process does to files below `root` through `os`, from now on; what is there already is kept."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._contents: dict[int, bytes] = {}
        """Inode → what is kept of its bytes."""
        self._names: dict[Path, int] = {}
        """Path → the inode that is found there after a power cut."""
        self.on_change: Callable[[], None] = lambda: None
        for path in (root, *root.rglob("*")):
            self._names[path] = path.stat().st_ino
            if path.is_file():
                self._contents[path.stat().st_ino] = path.read_bytes()
        for name in ("open", "fsync", "replace", "mkdir", "unlink"):
            patch.setattr(os, name, self._seen(name, getattr(os, name)))

    def after_a_power_cut(self, path: Path) -> bytes | None:
        """What would be read there; None where there would be nothing."""
        folders = [place for place in path.parents if place == self._root or self._root in place.parents]
        if path not in self._names or any(place not in self._names for place in folders):
            return None
        return self._contents.get(self._names[path], b"")

    def _seen(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, **given: Any) -> Any:
            done = call(*args, **given)
            if name == "fsync":
                self._keep(args[0])
            self.on_change()
            return done

        return made

    def _keep(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            self._contents[status.st_ino] = self._found(status.st_ino).read_bytes()  # it may be open for writing only
            return
        folder = self._found(status.st_ino)
        for path in [path for path in self._names if path.parent == folder]:
            del self._names[path]
        for path in folder.iterdir():
            self._names[path] = path.stat().st_ino

    def _found(self, inode: int) -> Path:
        return next(path for path in (self._root, *self._root.rglob("*")) if path.stat().st_ino == inode)
