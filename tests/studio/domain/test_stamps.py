"""Telling a changed file by what the file system says of it."""

import os
import time
from pathlib import Path

import pytest

from studio.domain import stamps
from studio.domain.stamps import FileStamp, file_stamp


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file on a file system whose clock stands still."""
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    frozen = os.stat(path)
    monkeypatch.setattr(stamps.os, "stat", lambda _: frozen)
    return path


def _in_seconds(seconds: float, monkeypatch: pytest.MonkeyPatch, path: Path) -> FileStamp:
    later = time.time_ns() + int(seconds * 1e9)
    with monkeypatch.context() as patch:
        patch.setattr(stamps.time, "time_ns", lambda: later)
        return file_stamp(path)


def test_a_young_file_is_never_taken_for_the_one_that_was_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = _in_seconds(0.001, monkeypatch, file)
    assert _in_seconds(0.002, monkeypatch, file) != read
    assert _in_seconds(60, monkeypatch, file) != read


def test_a_settled_file_keeps_its_stamp(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _in_seconds(60, monkeypatch, file) == _in_seconds(3600, monkeypatch, file)


def test_a_file_put_in_place_of_another_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    before = _in_seconds(60, monkeypatch, path)
    other = tmp_path / "other"
    other.write_bytes(b"two")
    os.utime(other, ns=(before.changed_ns, before.changed_ns))
    os.replace(other, path)
    assert _in_seconds(60, monkeypatch, path) != before


def test_a_file_that_is_not_there_has_no_stamp(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        file_stamp(tmp_path / "nothing")
