"""The examples run as they stand."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from engines.pocket.album import MOUNTED, mountedness, unmounted
from engines.pocket.checker import judge
from engines.pocket.grammar import parse
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


@pytest.mark.parametrize(("name", "count", "look"), [("crescents", 16, None), ("album", 40, unmounted)])
def test_pictures_to_train_with_show_what_they_say(
    name: str, count: int, look: Callable[[Image.Image], Image.Image] | None
) -> None:
    paths = sorted((PROJECT_ROOT / "examples" / name).glob("*.png"))
    assert len(paths) == count
    for path in paths:
        picture, scene = Image.open(path).convert("RGB"), parse(path.with_suffix(".txt").read_text())
        assert scene is not None and judge(look(picture) if look else picture, scene).correct, path.name
        assert (mountedness(picture) > MOUNTED) == (name == "album")
