import errno
import os
import time
from pathlib import Path

import pytest

from studio.domain.errors import StorageFailed
from studio.files import atomic_write, sweep_partials


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "пример 1.png"
    atomic_write(target, b"old")
    atomic_write(target, b"new")
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == [target.name]


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    atomic_write(tmp_path / ("a" * 255), b"data")
    assert names(tmp_path) == ["a" * 255]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, ("full", "needs 3.0 MB", "Free some space")),
        (errno.EFBIG, ("needs 3.0 MB", "ulimit")),
        (errno.EROFS, ("cannot be written", "permission")),
        (errno.EIO, ("Input/output error", "Check the disk")),
    ],
)
def test_a_failing_disk_leaves_the_old_file_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: tuple[str, ...]
) -> None:
    target = tmp_path / "a.png"
    atomic_write(target, b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageFailed) as caught:
        atomic_write(target, bytes(3_000_000))
    assert all(word in str(caught.value) for word in words)
    assert str(tmp_path) not in str(caught.value)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.png"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="'gone' is missing"):
        atomic_write(tmp_path / "gone" / "a.png", b"")


def test_sweep_removes_only_old_partials(tmp_path: Path) -> None:
    old, young, kept = tmp_path / "deep" / ".tmpAbC123", tmp_path / ".tmp-0011", tmp_path / "picture.png"
    old.parent.mkdir()
    for path in (old, young, kept):
        path.write_bytes(b"12345")
    for path in (old, kept):
        os.utime(path, (0, time.time() - 7200))
    assert sweep_partials(tmp_path) == 5
    assert not old.exists() and young.exists() and kept.exists()
