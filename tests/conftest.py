"""What many tests share: the catalogue, one engine on the pocket model, and services over a fresh data folder."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.base import Engine
from studio.domain.catalogue import Catalogue
from studio.generation import EngineHolder
from studio.services import CATALOGUE_PATH, Services, load_engine, open_services
from studio.settings import PROJECT_ROOT, Settings
from tests.reliability.counting import (  # noqa: F401  (pytest finds its hooks here)
    pytest_configure,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the work, a file's tests stay together, and so do all in a browser: they share a
    server, and two browsers at once are slower than one after the other."""
    for item in items:
        place = item.path.relative_to(PROJECT_ROOT).as_posix()
        is_in_browser = place.startswith("tests/browser/")
        item.add_marker(pytest.mark.xdist_group("browser" if is_in_browser else place))


@pytest.fixture
def swept_heap() -> Iterator[None]:
    """Lets the garbage collector pass over what earlier tests left: it looks at all of it a hundred times otherwise."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return Catalogue.load(CATALOGUE_PATH)


@pytest.fixture(scope="session")
def engine(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The real engine with the embedded checkpoint, loaded once for all tests."""
    return load_engine(Settings(data_dir=tmp_path_factory.mktemp("engine"), offline=True), catalogue)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", offline=True)


@pytest.fixture
def services(settings: Settings, engine: Engine) -> Iterator[Services]:
    """Services as the studio builds them, with the shared engine."""
    with open_services(settings, engine=EngineHolder(lambda: engine)) as opened:
        yield opened
