"""A model that is not here is fetched with the first picture: its progress is told, and Stop is heard meanwhile."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session

from engines import downloads, pool
from studio.domain.catalogue import Catalogue
from studio.domain.events import Cancelled, Event, Failed, Fetching, Finished
from studio.domain.request import GenerationRequest
from studio.generation import EngineHolder
from studio.services import CATALOGUE_PATH, Services, load_engine, open_services
from studio.settings import PROJECT_ROOT, Settings
from tests.engines.hub import FakeHub, served

POCKET = PROJECT_ROOT / "engines/pocket/weights/pocket-sd15"
QUICK = {"prompt": "a red star", "checkpoint": "sd15", "num_inference_steps": 1, "width": 256, "height": 256}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub whose Stable Diffusion 1.5 is the pocket model: the same files, less to fetch."""
    files = {p.relative_to(POCKET).as_posix(): p.read_bytes() for p in POCKET.rglob("*") if p.is_file()}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with served({"stable-diffusion-v1-5/stable-diffusion-v1-5": files}) as hub:
        monkeypatch.setattr(pool, "fetch", functools.partial(downloads.fetch, endpoint=hub.endpoint))
        yield hub
    close_session()


@pytest.fixture
def online(hub: FakeHub, tmp_path: Path) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path / "data")
    catalogue = Catalogue.load(CATALOGUE_PATH)
    with open_services(settings, engine=EngineHolder(lambda: load_engine(settings, catalogue))) as opened:
        yield opened


def events_of(services: Services, **changes: object) -> list[Event]:
    job = services.generation.submit(GenerationRequest(**{**QUICK, **changes}))
    return list(job.events(timeout=120))


def test_the_first_picture_brings_its_model_along(online: Services, hub: FakeHub) -> None:
    events = events_of(online)
    told = [event for event in events if isinstance(event, Fetching)]
    assert isinstance(events[-1], Finished), events[-1]
    assert told and told[-1].done_bytes == told[-1].total_bytes > 20_000_000
    assert (online.settings.models_dir / "sd15" / "model_index.json").is_file()
    asked = len(hub.asked)
    assert not [event for event in events_of(online, seed=2) if isinstance(event, Fetching)]
    assert len(hub.asked) == asked


def test_stop_is_heard_while_a_model_is_fetched(online: Services, hub: FakeHub) -> None:
    hub.faults.pause_s = 0.05
    job = online.generation.submit(GenerationRequest(**QUICK))
    for event in job.events(timeout=60):
        if isinstance(event, Fetching):
            job.cancel()
    assert isinstance(job.wait(timeout=10), Cancelled)
    assert not (online.settings.models_dir / "sd15").exists()


def test_a_model_that_is_gone_everywhere_fails_with_the_next_step(online: Services) -> None:
    failed = events_of(online, checkpoint="sd14")[-1]
    assert isinstance(failed, Failed)
    assert "CompVis/stable-diffusion-v1-4 is gone" in failed.message
    assert "models/sd14" in failed.hint
