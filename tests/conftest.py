"""What many tests share: the catalogue, one engine on the pocket model, and services over a fresh data folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.base import Engine
from studio.domain.catalogue import Catalogue
from studio.generation import EngineHolder
from studio.services import CATALOGUE_PATH, Services, load_engine, open_services
from studio.settings import Settings


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
