"""Everything that the page answers to, walked as somebody who has no business there.

Gradio's `visible=False` and "private" hide a listener and do not lock it: whoever may open the page can call each one
with whatever inputs they like. So each is called with the names of another visitor's things.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio.blocks import BlockFunction

from studio.domain.flash import parse_flash
from studio.domain.images import ImageRecord
from studio.domain.request import GenerationRequest
from studio.services import Services, open_services
from studio.settings import Settings
from studio.web.access import new_token, visitor_of
from tabs import shell
from tabs.launch import launch
from tests.tabs.conftest import Keep
from tests.tabs.pages import free_port

# Gradio asks pandas for an option that pandas 3 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.future.no_silent_downcasting:DeprecationWarning")

PASSWORD = "a password for guests"
CANARY = "a heart for canary 7f3a91"
LIMIT_S = 30.0


@dataclass(frozen=True)
class Guest:
    """A visitor, who may know what another's things are called."""

    url: str
    token: str | None

    def calls(self, page: gr.Blocks, names: list[str]) -> Iterator[tuple[str, str]]:
        """Every listener with each of `names` in its inputs: its function, and what it answers."""
        headers = {"Authorization": f"Bearer {PASSWORD}", **({"X-Flash-Visitor": self.token} if self.token else {})}
        with httpx.Client(base_url=self.url, headers=headers, timeout=LIMIT_S) as client:
            for index, listener in page.fns.items():
                if listener.fn is None:
                    continue
                for name in names:
                    values = [_value(component, name, names, self.token) for component in listener.inputs]
                    yield _function(listener), _answer(client, index, listener, values, name)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path, offline=True, mode="shared", password=PASSWORD, port=free_port())
    opened = open_services(settings)
    opened.runner.stop(timeout=10)
    yield opened
    opened.close()


@pytest.fixture
def page(services: Services) -> Iterator[gr.Blocks]:
    demo = shell.build(services)
    launch(demo, services)
    yield demo
    demo.close()


@pytest.fixture
def token() -> str:
    return new_token()


@pytest.fixture
def picture(keep: Keep, token: str) -> ImageRecord:
    return keep(token, CANARY)


@pytest.fixture
def names(services: Services, picture: ImageRecord, token: str) -> list[str]:
    """What the things of the bearer of `token` are called: a picture, a job, and a comparison."""
    visitor = visitor_of(token)
    job = services.generation.submit(GenerationRequest(prompt=CANARY), visitor)
    flash = services.flash.submit(parse_flash({"prompts": [CANARY]}), visitor)
    return [picture.id, job.id, flash.id]


def test_nobody_gets_at_what_is_anothers(
    services: Services, page: gr.Blocks, names: list[str], token: str, picture: ImageRecord
) -> None:
    before = services.ledger.image(picture.id)
    for stranger in (new_token(), None):
        told = list(Guest(page.local_url, stranger).calls(page, names))
        assert len(told) > 300 and {"call.generate", "call.job", "call.stop"} <= {function for function, _ in told}
        assert [function for function, answer in told if CANARY in answer] == []
        assert services.ledger.image(picture.id) == before and services.gallery.is_whole(picture)
        jobs = [services.ledger.job(name) for name in names[1:]]
        assert [(job.state, job.is_cancel_requested) for job in jobs] == [("queued", False)] * 2
    mine = [function for function, answer in Guest(page.local_url, token).calls(page, names) if CANARY in answer]
    assert len(set(mine)) >= 8, "the same questions by their owner are answered"


OWNERS = (
    "AdapterChange.", "AdapterIntoModel.", "AdapterMerge.", "AdapterPublish.", "ModelsPanel.", "TrainTab.",
    "DistilPanel.", "RunGridPanel.", "PicturesPanel.", "AdapterPanel.on_add", "AdapterPanel.on_merge", "call.train",
)  # fmt: skip
"""Whose listeners are for the owner of the machine alone."""


def test_what_only_an_owner_does_is_not_there(services: Services, page: gr.Blocks) -> None:
    there = {_function(listener) for listener in page.fns.values() if listener.fn is not None}
    assert [name for name in there if name.startswith(OWNERS)] == []
    assert [name for name in there if name.endswith(".on_delete")] == []


def _function(listener: BlockFunction) -> str:
    return getattr(listener.fn, "__qualname__", "")


def _value(component: Any, name: str, names: list[str], token: str | None) -> Any:
    """What a stranger could put into an input."""
    match component:
        case gr.BrowserState():
            key = str(component.storage_key)
            return token if key.endswith("visitor") else names if key.endswith("recent") else name
        case gr.State() | gr.File() | gr.UploadButton() | gr.ImageEditor():
            return None
        case gr.Number() | gr.Slider():
            return 1
        case gr.Checkbox():
            return False
        case _:
            return name


def _answer(client: httpx.Client, index: int, listener: BlockFunction, values: list[Any], name: str) -> str:
    event = {"id": name, "text": name, "index": 0, "value": name, "selected": True, "place": 0}
    asked = {"fn_index": index, "data": values, "session_hash": "stranger", "event_data": event}
    if not listener.queue:
        return client.post("/gradio_api/run/predict", json=asked).text
    client.post("/gradio_api/queue/join", json=asked)
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "stranger"}) as stream:
        lines = []
        for line in stream.iter_lines():
            lines.append(line)
            if line.startswith("data:") and json.loads(line[5:]).get("msg") in ("process_completed", "close_stream"):
                break
    return "\n".join(lines)
