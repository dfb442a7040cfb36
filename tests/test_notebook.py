"""The notebook runs from a clean kernel, as it stands, on pocket models."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from studio.settings import PROJECT_ROOT

NOTEBOOKS = sorted((PROJECT_ROOT / "examples").glob("*.ipynb"))
LIMIT_S = 900

pytestmark = pytest.mark.slow


def test_there_is_one_and_it_keeps_no_outputs() -> None:
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs") and cell.get("execution_count") is None


# ipykernel and its like warn of what their next versions change, and leave sockets to the garbage collector.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_a_clean_kernel(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    monkeypatch.setenv("STUDIO_NOTEBOOK_DIR", str(tmp_path / "work"))
    monkeypatch.setenv("STUDIO_NOTEBOOK_STEPS", os.environ.get("STUDIO_NOTEBOOK_STEPS", "100"))
    monkeypatch.setenv("FLASH_STUDIO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("FLASH_STUDIO_OFFLINE", "1")
    notebook = nbformat.read(path, as_version=4)
    began = time.monotonic()
    beside = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(notebook, timeout=LIMIT_S, kernel_name="python3", resources=beside).execute()
    assert time.monotonic() - began < LIMIT_S
    told = "".join(
        str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    )
    assert re.search(r"Right, of 4: \{'without': 0, 'with it': [0-4]\}", told), told
    assert "16 captions written" in told
    assert (tmp_path / "work" / "adapters" / "Crescents.safetensors").is_file()
