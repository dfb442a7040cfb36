"""Tools over MCP, as the official client meets them: a page that is really up, and a process of its own."""

import asyncio
import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from PIL import Image

from engines.base import Engine
from engines.pocket.checker import judge
from engines.pocket.grammar import parse
from engines.pocket.world import render
from studio.metadata import read_record
from studio.settings import PROJECT_ROOT
from studio.web.access import new_token
from studio.web.bodies import MAX_JSON_BYTES
from studio.web.own.calls import CALLS
from studio.web.own.mcp_server import PATH
from tests.tabs.pages import PATIENCE_S, Page, page_up, until

pytest.importorskip("mcp")
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ImageContent, TextContent

from tests.running_app import running_app
from tests.watched_names import watched_names

# Gradio asks pandas for an option that pandas 3 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.future.no_silent_downcasting:DeprecationWarning")

PASSWORD = "a password for guests"
BEARER = {"Authorization": f"Bearer {PASSWORD}"}
PROMPT = "a large red circle on a white background"
QUICK = {"prompt": PROMPT, "num_inference_steps": 6, "seed": 7}
ENDLESS = {**QUICK, "num_inference_steps": 150, "num_images": 64}
_ROW = re.compile(r"\| ([A-Z, ]+) \| (`.+`) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Tools:
    """The tools of the studio at `url`, for whoever sends `headers`."""

    url: str
    headers: dict[str, str]

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ClientSession]:
        async with (
            httpx.AsyncClient(headers=self.headers, timeout=PATIENCE_S) as client,
            streamable_http_client(f"{self.url}{PATH}/", http_client=client) as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            yield session

    def use(self, of: Callable[[ClientSession], Coroutine[Any, Any, _T]]) -> _T:
        async def used() -> _T:
            async with self.session() as session:
                return await of(session)

        return asyncio.run(asyncio.wait_for(used(), PATIENCE_S))

    def call(self, tool: str, /, **values: Any) -> CallToolResult:
        return self.use(lambda session: session.call_tool(tool, values))

    def told(self, tool: str, /, **values: Any) -> dict[str, Any]:
        """What a call that is answered tells."""
        result = self.call(tool, **values)
        assert not result.isError, result.content
        assert result.structuredContent == json.loads(text(result))
        return result.structuredContent or {}

    def refusal(self, tool: str, /, **values: Any) -> str:
        """What is said instead of an answer."""
        result = self.call(tool, **values)
        assert result.isError and len(result.content) == 1
        return text(result)


def text(result: CallToolResult) -> str:
    said = result.content[0]
    assert isinstance(said, TextContent)
    return said.text


def files(result: CallToolResult) -> list[bytes]:
    """The pictures that came with an answer."""
    shown = result.content[1:]
    assert all(isinstance(each, ImageContent) and each.mimeType == "image/png" for each in shown)
    return [base64.b64decode(each.data) for each in shown if isinstance(each, ImageContent)]


@pytest.fixture(scope="module")
def page(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with page_up(engine, tmp_path_factory.mktemp("own"), mcp=True) as up:
        yield up


@pytest.fixture(scope="module")
def own(page: Page) -> Tools:
    return Tools(page.url.rstrip("/"), {})


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a process of its own serves a shared studio."""
    settings = {"OFFLINE": "1", "MODE": "shared", "PASSWORD": PASSWORD, "MCP": "1"}
    environment = {f"FLASH_STUDIO_{name}": value for name, value in settings.items()}
    environment["GRADIO_MCP_SERVER"] = "True"  # Gradio's own, which asks nobody who they are, stays off
    with running_app(tmp_path_factory.mktemp("process"), **environment) as app:
        yield app.url


def test_the_tools_are_the_calls_described_for_a_language_model(own: Tools) -> None:
    listed = own.use(lambda session: session.list_tools()).tools
    assert [tool.name for tool in listed] == [call.name for call in CALLS]
    for tool in listed:
        assert tool.description and len(tool.description.split()) > 5
        meanings = {name: json.dumps(schema) for name, schema in tool.inputSchema["properties"].items()}
        assert [name for name, meaning in meanings.items() if '"description"' not in meaning] == []
    generate = listed[0]
    assert (
        generate.inputSchema["required"] == ["prompt"] and generate.inputSchema["properties"]["seed"]["default"] == -1
    )
    looks = {tool.name for tool in listed if tool.annotations and tool.annotations.readOnlyHint}
    assert looks == {"training", "job", "models", "adapters"}


def test_a_picture_is_the_file_with_its_recipe(page: Page, own: Tools, tmp_path: Path) -> None:
    result = own.call("generate", **QUICK, num_images=2)
    told = result.structuredContent or {}
    records = [page.services.gallery.image(picture["id"]) for picture in told["pictures"]]
    assert files(result) == [page.services.gallery.path(record).read_bytes() for record in records]
    (tmp_path / "picture.png").write_bytes(files(result)[1])
    found = read_record(tmp_path / "picture.png", "picture.png")
    assert found and found.recipe == records[1].recipe and (found.recipe.seed, found.recipe.prompt) == (8, PROMPT)
    assert told["pictures"][0]["recipe"]["num_inference_steps"] == 6
    many = own.call("generate", **{**QUICK, "num_inference_steps": 1}, num_images=5)
    assert len(files(many)) == 4 and len((many.structuredContent or {})["pictures"]) == 5


def test_how_far_it_is_is_told_to_who_wants_it(own: Tools) -> None:
    heard: list[tuple[float, str | None]] = []

    async def listen(progress: float, _: float | None, message: str | None) -> None:
        heard.append((progress, message))

    values = {**QUICK, "num_inference_steps": 50, "seed": 30}
    own.use(lambda session: session.call_tool("generate", values, progress_callback=listen))
    assert any(message and re.match(r"Step \d+ of 50", message) for _, message in heard)
    assert [progress for progress, _ in heard] == sorted({progress for progress, _ in heard})


def test_who_goes_away_stops_what_they_asked_for(page: Page, own: Tools) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "generate", "arguments": ENDLESS}}
    headers = {"Accept": "application/json, text/event-stream"}
    with httpx.stream("POST", f"{own.url}{PATH}", json=message, headers=headers, timeout=60) as heard:
        assert heard.status_code == 200
        until(lambda: bool(page.services.runner.active("local")))
        (job,) = page.services.runner.active("local")
    until(lambda: page.services.runner.row(job.id).state == "cancelled")


def test_what_is_refused_is_refused_in_a_sentence(own: Tools) -> None:
    assert own.refusal("generate", prompt="x", width=100).startswith("Width is 100; it must be a whole number from 64")
    assert own.refusal("generate") == "There is no prompt. Write what the picture should show."
    assert own.refusal("generate", prompt="x", init_image="y").startswith("There is no setting called 'init_image'.")
    assert own.refusal("nothing").startswith("There is no tool called 'nothing'. There are: generate, flash,")
    assert own.refusal("job", job="f" * 48) == "There is no such job. It may be somebody else's."
    assert own.refusal("job", job="x", wait_s="long").startswith("wait_s is 'long'")


def base64_scene(text: str = "a large blue circle on a white background") -> str:
    scene = parse(text)
    assert scene is not None
    return encoded(render(scene, seed=3))


def encoded(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def pixels(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.convert("RGB")


def test_a_picture_is_drawn_over_as_the_library_does(page: Page, own: Tools) -> None:
    given = base64_scene()
    for image in (given, f"data:image/png;base64,{given}"):
        result = own.call("generate", **QUICK, image=image, strength=0.6)
        told = result.structuredContent or {}
        (ours,) = page.services.generate(
            **QUICK, init_image=pixels(base64.b64decode(given)), strength=0.6, again=True
        )  # fmt: skip
        assert ours.id != told["pictures"][0]["id"]
        (picture,) = files(result)
        kept = page.services.gallery.path(ours).read_bytes()
        assert pixels(picture).tobytes() == pixels(kept).tobytes()
    name = told["pictures"][0]["recipe"]["init_image"]
    (named,) = files(own.call("generate", **QUICK, image=name, strength=0.6))
    assert pixels(named).tobytes() == pixels(picture).tobytes()


def test_what_a_mask_leaves_keeps_every_bit(own: Tools) -> None:
    given, mask = base64_scene(), Image.new("L", (128, 128))
    mask.paste(255, (64, 0, 128, 128))
    values = {**QUICK, "image": given, "strength": 1, "mask_blur": 0}
    (drawn,) = files(own.call("generate", **values, mask=encoded(mask)))
    before, after = pixels(base64.b64decode(given)), pixels(drawn)
    left, right = (0, 0, 64, 128), (64, 0, 128, 128)
    assert after.crop(left).tobytes() == before.crop(left).tobytes()
    assert after.crop(right).tobytes() != before.crop(right).tobytes()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("http://pictures.example.org/a.png", "A picture at an address is not fetched."),
        ("file:///etc/passwd", "A picture at an address is not fetched."),
        ("/etc/passwd", "The picture is no base64. Send a PNG, JPEG or WebP picture"),
        (base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(), "The picture is no PNG, JPEG or"),
        ("data:image/png;base64,", "The picture is empty, or no base64."),
        ({"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, "The picture is no file and no base64."),
        (["x"], "The picture is no file and no base64."),
        ("0" * 64, "There is no such picture here."),
    ],
)
def test_what_is_no_picture_is_refused_and_nothing_is_drawn(
    page: Page, own: Tools, given: object, sentence: str
) -> None:
    before, kept = page.services.gallery.count(), page.services.settings.sources_dir
    names = set(kept.rglob("*.png"))
    with watched_names() as heard:
        assert own.refusal("generate", **QUICK, image=given).startswith(sentence)
    assert not [name for name in heard if "pictures.example.org" in name]
    assert (page.services.gallery.count(), set(kept.rglob("*.png"))) == (before, names)


def test_no_more_is_read_than_our_own_api_reads(own: Tools) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "generate", "arguments": {}}}
    message["params"] = {"name": "generate", "arguments": {**QUICK, "image": "A" * MAX_JSON_BYTES}}
    headers = {"Accept": "application/json, text/event-stream"}
    answer = httpx.post(f"{own.url}{PATH}", json=message, headers=headers, timeout=60)
    assert answer.status_code == 413 and "The body has more than 64 MB." in answer.json()["error"]["message"]


def test_comparisons_evaluations_and_trainings_are_tools(own: Tools) -> None:
    told = own.told("flash", prompts=[PROMPT], steps=[2], baseline_steps=4, num_images=1)
    assert [column["name"] for column in told["comparison"]["columns"]] == ["baseline", "s2"]
    systems = [{"num_inference_steps": 2}, {"num_inference_steps": 1}]
    begun = own.told("evaluate", systems=systems, prompts=[PROMPT], num_images=1, wait_s=60)
    ended = begun if "evaluation" in begun else own.told("job", job=begun["id"], wait_s=60)
    assert ended["evaluation"]["table"][0]["n"] == 1
    folder = str(PROJECT_ROOT / "examples" / "crescents")
    run = own.told("train_lora", name="Moons", folder=folder, num_steps=5000)
    assert own.told("training", run=run["run"])["run"]["total"] == 5000
    assert own.told("stop", job=run["job"]["id"])["kind"] == "train"
    assert own.told("models")["models"] and own.told("adapters") == {"adapters": []}


def test_in_a_process_of_its_own_behind_a_password(address: str) -> None:
    for headers in ({}, {"Authorization": "Bearer a wrong password"}):
        with pytest.raises(BaseExceptionGroup):
            Tools(address, headers).use(lambda session: session.list_tools())
    ada, bob = (Tools(address, {**BEARER, "X-Flash-Visitor": new_token()}) for _ in range(2))
    names = [tool.name for tool in ada.use(lambda session: session.list_tools()).tools]
    assert names == [call.name for call in CALLS if not call.is_owners]
    over = ada.call("generate", **QUICK, image=base64_scene(), strength=0.6).structuredContent or {}
    name = over["pictures"][0]["recipe"]["init_image"]
    assert ada.told("generate", **QUICK, image=name, strength=0.6)["pictures"][0]["id"] == over["pictures"][0]["id"]
    assert bob.refusal("generate", **QUICK, image=name).startswith("There is no such picture here.")
    result = ada.call("generate", **QUICK)
    (data,) = files(result)
    with Image.open(io.BytesIO(data)) as picture:
        assert judge(picture.convert("RGB"), parse(PROMPT)).correct
    told = result.structuredContent or {}
    recipe = told["pictures"][0]["recipe"]
    assert (recipe["prompt"], recipe["seed"], recipe["num_inference_steps"]) == (PROMPT, 7, 6)
    served = httpx.get(address + told["pictures"][0]["url"], headers=BEARER, timeout=60)
    assert served.content == data
    assert ada.told("job", job=told["id"])["state"] == "done"
    assert bob.refusal("job", job=told["id"]) == "There is no such job. It may be somebody else's."
    assert bob.refusal("stop", job=told["id"]) == "There is no such job. It may be somebody else's."
    assert httpx.get(f"{address}{PATH}/schema", headers=BEARER, timeout=60).status_code == 404
    nobody = Tools(address, BEARER)
    assert nobody.refusal("generate", **QUICK).startswith("There is no X-Flash-Visitor")
    assert nobody.refusal("train_lora", name="x", folder="/").startswith("There is no tool called 'train_lora'")


def test_who_is_let_in_is_as_the_page_of_rights_says(address: str, own: Tools) -> None:
    section = (PROJECT_ROOT / "docs" / "authorisation.md").read_text(encoding="utf-8").partition("\n## Tools")[2]
    rows = _ROW.findall(section.partition("\n## ")[0])
    assert rows
    who = (
        (address, {}),
        *((address, {**BEARER, "X-Flash-Visitor": new_token()}) for _ in range(2)),
        (own.url, {}),
    )
    for methods, paths, *statuses in rows:
        for method, path in product(methods.split(", "), re.findall("`(.+?)`", paths)):
            for (url, headers), status in zip(who, statuses, strict=True):
                answer = httpx.request(
                    method, url + path, headers=headers, json={} if method == "POST" else None, timeout=60
                )
                assert answer.status_code == int(status), (method, path, headers)


def test_without_the_package_one_sentence_says_so() -> None:
    program = (
        "import sys, importlib.machinery as m\n"
        "find = m.PathFinder.find_spec.__func__\n"
        "m.PathFinder.find_spec = classmethod("
        "lambda cls, name, *a: None if name.split('.')[0] == 'mcp' else find(cls, name, *a))\n"
        "from studio.domain.errors import InvalidRequest\n"
        "from studio.web.own.mcp_server import mcp_server\n"
        "try: mcp_server(None)\n"
        "except InvalidRequest as error: print(error)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout == (
        "FLASH_STUDIO_MCP is set, and the package that MCP needs is not installed. "
        "pip install -r requirements-mcp.txt, or leave it unset.\n"
    )
