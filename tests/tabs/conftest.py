"""The page's parts over real services whose worker stands still, so that nothing loads a model."""

import asyncio
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import gradio as gr
import pytest
from PIL import Image

from engines.base import Engine
from studio.domain.catalogue import Catalogue
from studio.domain.images import ImageRecord
from studio.domain.request import GenerationRequest
from studio.gallery import NewImage
from studio.services import CATALOGUE_PATH, Services, open_services
from studio.settings import Settings
from studio.web.access import visitor_of
from tabs import shell
from tabs.generate import GenerateTab, build_generate
from tests.tabs.pages import PASSWORD, Page, page_up


class Keep(Protocol):
    def __call__(self, token: str, prompt: str = ...) -> ImageRecord: ...


@pytest.fixture(scope="session", autouse=True)
def no_leaked_event_loops() -> Iterator[None]:
    """Gradio makes an event loop for every lock of a `Blocks` and closes none; Python 3.10 and later need none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradio.queueing.safe_get_lock", asyncio.Lock)
        patch.setattr("gradio.utils.safe_get_lock", asyncio.Lock)
        patch.setattr("gradio.utils.safe_get_stop_event", asyncio.Event)
        yield


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return Catalogue.load(CATALOGUE_PATH)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    opened = open_services(Settings(data_dir=tmp_path))
    opened.runner.stop(timeout=10)
    yield opened
    opened.close()


@pytest.fixture
def page(services: Services) -> gr.Blocks:
    return shell.build(services)


@pytest.fixture
def tab(services: Services) -> GenerateTab:
    with gr.Blocks():
        return build_generate(services)


@pytest.fixture
def keep(services: Services) -> Keep:
    return partial(kept, services)


@pytest.fixture(scope="module")
def own(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page that is up, of one's own."""
    with page_up(engine, tmp_path_factory.mktemp("own")) as page:
        yield page


@pytest.fixture(scope="module")
def shared(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One that others reach with the password."""
    with page_up(engine, tmp_path_factory.mktemp("shared"), mode="shared", password=PASSWORD) as page:
        yield page


@pytest.fixture(scope="module")
def client(own: Page) -> Any:
    """Gradio's own client of the page of one's own."""
    return own.client()


def kept(services: Services, token: str, prompt: str = "a red circle") -> ImageRecord:
    """A small picture as if the bearer of `token` had made it."""
    request = services.catalogue.resolve(GenerationRequest(prompt=prompt, seed=7))
    new = NewImage(
        job_id=secrets.token_hex(8), visitor=visitor_of(token), image_index=0, recipe=request,
        prompt_as_run=request.prompt, negative_as_run="", environment={}, seconds={"total": 1.0},
        peak_memory_mb=1.0,
    )  # fmt: skip
    return services.gallery.save(Image.new("RGB", (16, 16), "red"), new)
