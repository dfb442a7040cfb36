"""Folders that cannot be written for a while, for real: as when a disk is away, read-only or full."""

import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def replaced_by_a_file(folder: Path) -> Generator[None]:
    kept = folder.with_name("kept")
    folder.rename(kept)
    folder.write_text("no folder")
    try:
        yield
    finally:
        folder.unlink()
        try:
            kept.rename(folder)
        except OSError:  # it was made anew meanwhile
            shutil.copytree(kept, folder, dirs_exist_ok=True)
            shutil.rmtree(kept)


@contextmanager
def read_only(folder: Path) -> Generator[None]:
    """A disk that may not be written; modes do not bind root."""
    with _mounted(folder, "ro"):
        yield


@contextmanager
def full(folder: Path) -> Generator[None]:
    with _mounted(folder, "size=4k"):
        yield


@contextmanager
def _mounted(folder: Path, options: str) -> Generator[None]:
    """A disk of its own in place of `folder`."""
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
