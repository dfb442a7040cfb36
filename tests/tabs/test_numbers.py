"""Numbers that cannot be: one table, and every door says the same of it, naming the field. Nothing is queued."""

import html
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.routes import App
from starlette.testclient import TestClient

from engines.base import Engine
from studio.cli.arguments import FLAGS
from studio.cli.main import main
from studio.domain.errors import InvalidRequest
from studio.domain.request import label, parse_request
from studio.generation import EngineHolder
from studio.services import Services
from studio.web.access import new_token, visitor_of
from tabs.generate import GenerateTab

PROMPT = "a red star"
SIZES = (7, 8, 4097, -512, 0, 512.5, math.nan, "wide", 2**64)
WRONG: dict[str, tuple[object, ...]] = {
    "num_inference_steps": (0, -1, 1e9, math.nan, math.inf, 2.5, "many", "4 steps", 2**64),
    "width": SIZES,
    "height": SIZES,
    "seed": (-2, 2**32, 2**64, -(2**64), 0.5, math.nan, -math.inf, "dice"),
    "num_images": (0, -1, 65, 1000, 1e9, 1.5, math.nan, "all"),
    "guidance_scale": (math.inf, -math.inf, math.nan, -0.1, 30.1, 1e300, "high", "nan"),
}
TABLE = [(field, value) for field, values in WRONG.items() for value in values]
READ = [
    ("num_inference_steps", "4", 4), ("num_inference_steps", 4.0, 4), ("width", "64", 64), ("seed", "0", 0),
    ("seed", 2**32 - 1, 2**32 - 1), ("num_images", "2", 2), ("guidance_scale", "2.5", 2.5), ("guidance_scale", 0, 0.0),
]  # fmt: skip
"""What can be read as a number that fits is one, and goes on as a number."""


def said(field: str, value: object) -> str:
    """The one sentence there is about a value."""
    with pytest.raises(InvalidRequest) as caught:
        parse_request({"prompt": PROMPT, field: value})
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{label(field)} is ")
    return str(caught.value)


@pytest.fixture
def nothing_waits(services: Services) -> Iterator[None]:
    yield
    assert services.ledger.waiting("studio") == 0


@pytest.fixture
def ask_over_http(page: gr.Blocks) -> Iterator[Callable[..., str]]:
    """Sends a form to the page's own address, as anybody may, past the page and what it checks."""
    page.queue(max_size=4, api_open=False)
    number, listener = next((n, fn) for n, fn in page.fns.items() if getattr(fn.fn, "__name__", "") == "on_generate")

    with TestClient(App.create_app(page)) as client:

        def send(token: str, **values: object) -> str:
            by_id = {name.replace("_", "-"): value for name, value in values.items()}
            data = [by_id.get(block.elem_id) for block in listener.inputs]
            data[[isinstance(block, gr.BrowserState) for block in listener.inputs].index(True)] = token
            body = json.dumps({"fn_index": number, "data": data, "session_hash": "anybody"})
            answer = client.post("/gradio_api/run/predict", content=body, headers={"content-type": "application/json"})
            assert answer.status_code == 200, answer.text
            return answer.text

        yield send


def form(tab: GenerateTab, token: str, **values: object) -> dict[Any, object]:
    return {**{component: values.get(name) for name, component in tab.ask.form.fields.items()}, tab.token: token}


@pytest.mark.usefixtures("nothing_waits")
def test_the_page_says_it_next_to_the_control(tab: GenerateTab) -> None:
    for field, value in TABLE:
        updates = tab.on_generate(form(tab, new_token(), prompt=PROMPT, **{field: value}))
        assert html.escape(said(field, value)) in updates[tab.ask.errors[field]]
        assert tab.signal not in updates


@pytest.mark.usefixtures("nothing_waits")
def test_the_pages_address_says_it_to_whoever_asks(ask_over_http: Callable[..., str]) -> None:
    for field, value in TABLE:
        answer = ask_over_http(new_token(), prompt=PROMPT, **{field: value})
        assert json.dumps(html.escape(said(field, value)))[1:-1] in answer


@pytest.mark.usefixtures("nothing_waits")
def test_the_library_says_it(services: Services) -> None:
    for field, value in TABLE:
        with pytest.raises(InvalidRequest) as caught:
            services.generate(PROMPT, **{field: value})
        assert (caught.value.field, str(caught.value)) == (field, said(field, value))


def test_the_command_line_says_it_and_names_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> Engine:
        raise AssertionError("the engine was asked for")

    monkeypatch.setenv("FLASH_STUDIO_DATA_DIR", str(tmp_path / "cli"))
    for field, value in TABLE:
        flag = FLAGS[field][0]
        code = main(["generate", PROMPT, f"{flag}={value}"], EngineHolder(load))
        out, err = capsys.readouterr()
        expected = said(field, math.nan if value == "nan" else value)
        assert (code, out, err) == (2, "", f"error: {expected} ({flag})\n")
    assert not (tmp_path / "cli").exists()


@pytest.mark.parametrize(("field", "value", "number"), READ)
def test_what_is_a_number_goes_on_as_one(tab: GenerateTab, field: str, value: object, number: float) -> None:
    token = new_token()
    tab.on_generate(form(tab, token, prompt=PROMPT, **{field: value}))
    (job,) = tab.services.runner.active(visitor_of(token))
    assert job.payload[field] == number and type(job.payload[field]) is type(number)


def test_a_number_over_http_goes_on_as_one(ask_over_http: Callable[..., str], services: Services) -> None:
    token = new_token()
    ask_over_http(token, prompt=PROMPT, num_inference_steps="4")
    (job,) = services.runner.active(visitor_of(token))
    assert job.payload["num_inference_steps"] == 4
