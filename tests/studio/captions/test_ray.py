"""Parts of a folder captioned by Ray Data with two workers on this machine; the shards are the same as without."""

import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from studio.captions.shards import SUFFIX
from studio.domain.captions import Status, row_of
from studio.processes import child_environment
from tests.studio.captions.scenes import scenes

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="an extra: pip install -r requirements-ray.txt")


def caption(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "studio", "dataset", "caption", str(folder), "--engine", "ray", *more]
    return subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=300, check=False)


def rows(folder: Path) -> list[str]:
    shards = folder.with_name(f"{folder.name}-captions")
    read = [row_of(line) for path in shards.glob(f"*{SUFFIX}") for line in path.read_bytes().splitlines()]
    assert all(row.status is Status.DONE for row in read)
    return [row.name for row in read]


@needs_ray
def test_two_workers_caption_each_picture_once_and_a_second_run_adds_what_is_new(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    names = [path.name for path in scenes(folder, 24, size=128)]
    done = caption(folder, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert Counter(rows(folder)) == dict.fromkeys(names, 1)
    assert len(list(folder.with_name("scenes-captions").glob(f"*{SUFFIX}"))) == 2
    names = [path.name for path in scenes(folder, 30, size=128)]
    again = caption(folder, "--workers", "2")
    assert again.returncode == 0, again.stderr
    assert Counter(rows(folder)) == dict.fromkeys(names, 1)


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is here")
def test_without_ray_it_says_what_to_install(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    scenes(folder, 2)
    done = caption(folder, "--workers", "2")
    assert done.returncode == 1
    assert "requirements-ray.txt" in done.stderr
