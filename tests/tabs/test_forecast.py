"""Before a picture is made the page says what it takes; guests see nothing of the machine's memory."""

from pathlib import Path

import pytest

from engines.base import Engine
from studio.domain.catalogue import Catalogue
from studio.generation import EngineHolder
from studio.services import Services, open_services
from studio.settings import Settings
from tabs.forecast import memory_note, plan_line


def test_the_line_tells_what_the_picture_of_the_form_takes(services: Services) -> None:
    assert memory_note(services, {"prompt": ""}) == "", "the engine is not there yet"
    services.generation.preload()
    small, large = (memory_note(services, {"prompt": "", "checkpoint": name}) for name in (None, "sdxl"))
    assert "about 0.1 GB of the" in small and "free" in small
    assert small != large
    assert memory_note(services, {"prompt": "x", "width": 7}) == "", "what cannot be asked for has no plan"


def test_what_does_not_fit_is_said_with_a_way_out(settings: Settings, catalogue: Catalogue) -> None:
    from studio.services import load_engine

    tight = settings.model_copy(update={"memory_gb": 0.2})
    with open_services(tight, engine=EngineHolder(lambda: load_engine(tight, catalogue))) as services:
        services.generation.preload()
        note = memory_note(services, {"prompt": "a fox", "checkpoint": "sdxl"})
        assert "field-warning" in note and "smaller picture, choose a smaller model" in note
        assert "does not fit" in plan_line(services, catalogue.checkpoint("sdxl"))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_free_memory_is_the_owners_business(tmp_path: Path, engine: Engine, catalogue: Catalogue, host: str) -> None:
    settings = Settings(data_dir=tmp_path, offline=True, host=host)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        services.generation.preload()
        row = catalogue.checkpoint("sdxl")
        assert ("free" in plan_line(services, row)) is (host == "127.0.0.1")
        assert bool(memory_note(services, {"prompt": "x"})) is (host == "127.0.0.1")
