"""The command line in this process, over the shared engine."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engines.base import Engine
from studio.cli.main import main
from studio.generation import EngineHolder

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLASH_STUDIO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("FLASH_STUDIO_OFFLINE", "1")
    return tmp_path / "data"


@pytest.fixture
def cli(data_dir: Path, engine: Engine, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command line in this process: (exit code, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments, EngineHolder(lambda: engine))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
