"""The examples run as they stand."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.metadata import read_record
from studio.settings import PROJECT_ROOT

EXAMPLES = sorted((PROJECT_ROOT / "examples").glob("*.py"))
PATIENCE_S = 300

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[int, str, Path]]]:
    """Every example, run at the same time, each in a folder and with data of its own: (exit code, output, folder)."""
    folders = {path.stem: tmp_path_factory.mktemp(path.stem) for path in EXAMPLES}
    processes = {
        path.stem: subprocess.Popen(
            [sys.executable, str(path)],
            cwd=folders[path.stem],
            env={**os.environ, "FLASH_STUDIO_DATA_DIR": str(folders[path.stem] / "data"), "FLASH_STUDIO_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for path in EXAMPLES
    }
    outputs = {name: process.communicate(timeout=PATIENCE_S)[0] for name, process in processes.items()}
    yield {name: (process.returncode, outputs[name], folders[name]) for name, process in processes.items()}


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_an_example_runs(runs: dict[str, tuple[int, str, Path]], name: str) -> None:
    code, output, _ = runs[name]
    assert code == 0, output
    assert "Traceback" not in output


def test_generate_saves_pictures_that_remember_their_settings(runs: dict[str, tuple[int, str, Path]]) -> None:
    _, output, folder = runs["generate"]
    pictures = sorted(folder.glob("*.png"))
    assert [path.name for path in pictures] == ["seed-7.png", "seed-8.png"]
    assert all(path.name in output for path in pictures)
    records = [read_record(path, path.name) for path in pictures]
    assert [record and record.recipe.seed for record in records] == [7, 8]


def test_reproduce_comes_to_the_same_pixels(runs: dict[str, tuple[int, str, Path]]) -> None:
    assert "Identical" in runs["reproduce"][1]
