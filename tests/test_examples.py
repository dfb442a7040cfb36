"""The examples run as they stand."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from engines.base import Engine
from engines.pocket.album import MOUNTED, mountedness, unmounted
from engines.pocket.checker import judge
from engines.pocket.grammar import parse
from studio.metadata import read_record
from studio.settings import PROJECT_ROOT
from tests.tabs.conftest import no_leaked_event_loops  # noqa: F401  (pytest finds it here)
from tests.tabs.pages import page_up

EXAMPLES = sorted((PROJECT_ROOT / "examples").glob("*.py"))
CLIENTS = [path for path in EXAMPLES if path.stem.endswith("_client")]
"""Those that ask a studio which is up."""
README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
PATIENCE_S = 300

Ran = dict[str, tuple[int, str, Path]]
"""Exit code, output and folder of each example, by its name."""

# Gradio asks pandas for an option that pandas 3 deprecates.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.future.no_silent_downcasting:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def address(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a studio is up, with everything that it serves."""
    with page_up(engine, tmp_path_factory.mktemp("studio"), mcp=True) as page:
        yield page.url.rstrip("/")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, address: str) -> Ran:
    """Every example, run at the same time, each in a folder and with data of its own."""
    folders = {path.stem: tmp_path_factory.mktemp(path.stem) for path in EXAMPLES}
    processes = {
        path.stem: subprocess.Popen(
            [sys.executable, str(path), *([address] if path in CLIENTS else [])],
            cwd=folders[path.stem],
            env={**os.environ, "FLASH_STUDIO_DATA_DIR": str(folders[path.stem] / "data"), "FLASH_STUDIO_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for path in EXAMPLES
    }
    outputs = {name: process.communicate(timeout=PATIENCE_S)[0] for name, process in processes.items()}
    return {name: (process.returncode, outputs[name], folders[name]) for name, process in processes.items()}


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_an_example_runs(runs: Ran, name: str) -> None:
    code, output, _ = runs[name]
    assert code == 0, output
    assert "Traceback" not in output


def test_generate_saves_pictures_that_remember_their_settings(runs: Ran) -> None:
    _, output, folder = runs["generate"]
    pictures = sorted(folder.glob("*.png"))
    assert [path.name for path in pictures] == ["seed-7.png", "seed-8.png"]
    assert all(path.name in output for path in pictures)
    records = [read_record(path, path.name) for path in pictures]
    assert [record and record.recipe.seed for record in records] == [7, 8]


def test_reproduce_comes_to_the_same_pixels(runs: Ran) -> None:
    assert "Identical" in runs["reproduce"][1]


def test_openais_client_draws_changes_and_watches(runs: Ran) -> None:
    _, _, folder = runs["openai_client"]
    made = read_record(folder / "circle.png", "circle.png")
    assert made and (made.recipe.seed, made.recipe.num_inference_steps) == (7, 12)
    changed = read_record(folder / "blue.png", "blue.png")
    assert changed and changed.recipe.init_image and changed.recipe.strength == 0.8
    with Image.open(folder / "heart.jpg") as heart:
        scene = parse("a yellow heart above a purple square on a navy background")
        assert scene and judge(heart.convert("RGB"), scene).correct
    assert list(folder.glob("heart-*.jpg"))


def test_a_client_of_a1111_draws_and_changes_a_part(runs: Ran) -> None:
    _, output, folder = runs["a1111_client"]
    with Image.open(folder / "circle.png") as circle, Image.open(folder / "half.png") as half:
        left = (0, 0, 64, 128)
        assert circle.convert("RGB").crop(left).tobytes() == half.convert("RGB").crop(left).tobytes()
        assert circle.convert("RGB").tobytes() != half.convert("RGB").tobytes()
    assert output.splitlines()[-1] == "a large blue circle on a white background"


def test_gradios_client_draws_and_compares(runs: Ran) -> None:
    _, output, folder = runs["gradios_client"]
    records = [read_record(folder / f"seed-{seed}.png", f"seed-{seed}.png") for seed in (7, 8)]
    assert [record and record.recipe.num_inference_steps for record in records] == [12, 12]
    blue = read_record(folder / "blue.png", "blue.png")
    assert blue and blue.recipe.init_image and blue.recipe.strength == 0.8
    assert "pocket-sd15 to begin with" in output and re.search(r"\n4 steps: \d+\.\d\d s a picture", output)


def test_a_language_models_program_draws(runs: Ran) -> None:
    _, output, folder = runs["mcp_client"]
    made = read_record(folder / "tool.png", "tool.png")
    assert made and (made.recipe.seed, made.recipe.num_inference_steps) == (7, 12)
    assert "Tools: generate flash" in output and "Guidance 3.0" in output


def test_what_the_readme_says_to_other_programs_works(address: str, tmp_path: Path) -> None:
    section = README.partition("\n## For other programs\n")[2].partition("\n## ")[0]
    blocks = re.findall("```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        program = block.replace("7860", str(urlsplit(address).port))
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=PATIENCE_S)
    assert len(list(tmp_path.glob("*.png"))) == 2


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
