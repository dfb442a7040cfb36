"""The command line in this process, over the shared engine; a catalogue with an accelerator for the pocket model; an
empty ledger in either kind of database."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from engines.base import Engine
from studio import services as services_module
from studio.cli.main import main
from studio.generation import EngineHolder
from studio.ledger import Ledger
from studio.services import CATALOGUE_PATH, Services, open_services
from studio.settings import Settings
from tests import postgres
from tests.studio.adapter_files import adapter_file

ROW = """
[[accelerators]]
id = "swift"
title = "Swift"
family = "sd15"
checkpoint = "pocket-sd15"
scheduler = "lcm"
grid = "trailing"
trained_steps = [2, 4]
default_steps = 4
lora_scale = 0.5
licence = "MIT"
is_commercial = true
note = "For tests."
file = "{file}"
"""

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


@pytest.fixture
def swift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue with one accelerator more, and that accelerator's file."""
    file = adapter_file(tmp_path / "swift.safetensors", scale=0.3)
    rows = tmp_path / "catalogue.toml"
    rows.write_text(CATALOGUE_PATH.read_text(encoding="utf-8") + ROW.format(file=file.as_posix()), encoding="utf-8")
    monkeypatch.setattr(services_module, "CATALOGUE_PATH", rows)
    monkeypatch.setattr("studio.cli.main.CATALOGUE_PATH", rows)
    return file


@pytest.fixture
def opened(settings: Settings, engine: Engine, swift: Path) -> Iterator[Services]:
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        yield services


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'data' / 'studio.db'}"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL server, with a place for the name of a database."""
    bin_dir = postgres.programs()
    if bin_dir is None:
        pytest.skip("PostgreSQL or its driver is not installed")
    with postgres.running(bin_dir) as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, sqlite_url: str) -> str:
    """An empty database of either kind: a ledger promises the same in both."""
    if request.param == "sqlite":
        return sqlite_url
    address, name = request.getfixturevalue("server"), f"ledger_{secrets.token_hex(4)}"
    engine = create_engine(address.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return address.format(name)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger(url)
    yield opened
    opened.close()
