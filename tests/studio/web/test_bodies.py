"""What bodies are read, and what is said of those that are not: the same for every interface."""

import contextlib
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from studio.domain.errors import StudioError
from studio.web import bodies
from studio.web.refusals import answered, headers_of, status_of, word_of
from tests.studio.web.conftest import Serve

JSON_TYPE = {"Content-Type": "application/json"}


@pytest.fixture
def client(serve: Serve) -> Iterator[httpx.Client]:
    async def read_json(request: Request) -> Response:
        return JSONResponse(await bodies.read_json(request))

    async def read_form(request: Request) -> Response:
        return JSONResponse([[name, len(value)] for name, value in await bodies.read_form(request)])

    def refusal(error: StudioError) -> Response:
        said = {"word": word_of(error), "said": str(error)}
        return JSONResponse(said, status_of(error), headers_of(error))

    routes = [
        Route(path, answered(endpoint, refusal), methods=["POST"])
        for path, endpoint in (("/json", read_json), ("/form", read_form))
    ]
    with httpx.Client(base_url=serve(routes), timeout=30) as opened:
        yield opened


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"{}", 200, None),
        (nested(bodies.DEEPEST), 200, None),
        (nested(bodies.DEEPEST + 1), 400, "too_deep"),
        (b"", 400, "not_json"),
        (b"{", 400, "not_json"),
        (b"\xff", 400, "not_json"),
        (b"[" * 100_000, 400, "not_json"),
        (b'{"a": ' + b"9" * 5000 + b"}", 400, "not_json"),
        (b"[]", 422, "invalid_request"),
        (b"null", 422, "invalid_request"),
    ],
)
def test_an_object_is_read_and_nothing_else(client: httpx.Client, body: bytes, status: int, word: str | None) -> None:
    answer = client.post("/json", content=body, headers=JSON_TYPE)
    assert (answer.status_code, answer.json().get("word")) == (status, word)
    if status == 200:
        assert answer.json() == json.loads(body)


def test_other_kinds_of_body_are_refused(client: httpx.Client) -> None:
    for path, sent in (("/json", {"data": {"a": "b"}}), ("/json", {"content": b"{}"}), ("/form", {"json": {}})):
        answer = client.post(path, **sent)  # type: ignore[arg-type]
        assert answer.status_code == 415 and answer.json()["word"] == "wrong_content_type"
    assert client.post("/json", content=b"{}", headers={"Content-Type": "APPLICATION/JSON; a=b"}).status_code == 200


def test_what_is_too_large_is_heard_out_to_a_degree_and_never_held(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_JSON_BYTES", 10**6)
    monkeypatch.setattr(bodies, "MAX_FORM_BYTES", 10**6)
    monkeypatch.setattr(bodies, "MAX_FILE_BYTES", 10**5)

    def pieces(count: int) -> Iterator[bytes]:
        return (b" " * 10**5 for _ in range(count))

    def refused(answer: httpx.Response) -> None:
        assert answer.status_code == 413 and answer.json()["word"] == "too_large"

    tracemalloc.start()
    for count in (11, 39):
        refused(client.post("/json", content=pieces(count), headers=JSON_TYPE))
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 3 * 10**6
    refused(client.post("/form", files={"image": b" " * (10**5 + 1)}))
    refused(client.post("/form", files={"image": b" " * 2 * 10**6}))
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 10**5

    with contextlib.suppress(httpx.TransportError):  # the refusal may come, or the connection be gone before
        refused(client.post("/json", content=endless(), headers=JSON_TYPE))
    assert sent < 1000


def test_a_form_has_files_and_texts_by_name(client: httpx.Client) -> None:
    sent: Any = [("image[]", b"123"), ("image[]", b"4"), ("prompt", (None, "a cat"))]
    assert client.post("/form", files=sent).json() == [["image[]", 3], ["image[]", 1], ["prompt", 5]]
    answer = client.post("/form", content=b"--", headers={"Content-Type": "multipart/form-data"})
    assert answer.status_code == 422 and "cannot be read" in answer.json()["said"]
