"""Which uploaded file is whose: the newest are known, and of all others nothing is looked at."""

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from studio.domain.errors import InvalidRequest, NotFound
from studio.settings import Settings
from studio.web import uploads
from studio.web.access import Caller, new_token, visitor_of
from studio.web.uploads import UPLOAD, Uploads, UploadsNoted

ADA, BOB = (Caller(visitor=name, owner=name) for name in ("ada", "bob"))
OWNER = Caller(visitor="local", owner=None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"what was sent")
    return tmp_path / "a.png"


def test_a_file_is_whose_it_was(file: Path) -> None:
    known = Uploads()
    known.note(str(file), ADA)
    assert known.content(str(file), ADA, "init_image") == b"what was sent"
    assert known.content(f"{file.parent}/./b/../a.png", ADA, "init_image") == b"what was sent"
    for path, caller in ((str(file), BOB), (str(file), OWNER), (str(file.parent), ADA), ("", ADA), (None, ADA)):
        with pytest.raises(NotFound, match="The mask is no file that you sent"):
            known.content(path, caller, "mask")


def test_what_was_deleted_is_not_there_and_what_is_empty_is_said_to_be(file: Path) -> None:
    known = Uploads()
    known.note(str(file), OWNER)
    file.write_bytes(b"")
    with pytest.raises(InvalidRequest, match="The shape to keep to is an empty file"):
        known.content(str(file), OWNER, "control_image")
    file.unlink()
    with pytest.raises(NotFound):
        known.content(str(file), OWNER, "init_image")


def test_the_newest_are_known(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_MOST", 3)
    known = Uploads()
    for path in (str(file), "/1", "/2", str(file), "/3"):
        known.note(path, ADA)
    assert known.content(str(file), ADA, "init_image") == b"what was sent"
    for path in ("/4", "/5", "/6"):
        known.note(path, ADA)
    with pytest.raises(NotFound):
        known.content(str(file), ADA, "init_image")


def test_it_is_whoever_sent_it_that_is_noted(file: Path) -> None:
    known, token = Uploads(), new_token()

    async def answer(request: Request) -> Response:
        if "refused" in request.query_params:
            return PlainTextResponse(f'["{file}"]', 413)
        return JSONResponse([str(file)])

    settings = Settings(mode="shared", password="a password for guests")
    routes = [Route(path, answer, methods=["GET", "POST"]) for path in (UPLOAD, "/elsewhere")]
    noted = Middleware(UploadsNoted, settings=settings, uploads=known)
    client = TestClient(Starlette(routes=routes, middleware=[noted]))
    caller = Caller(visitor=visitor_of(token), owner=visitor_of(token), is_named=True)

    said = {"X-Flash-Visitor": token}
    for method, path, headers in (
        ("POST", f"{UPLOAD}?refused", said), ("GET", UPLOAD, said), ("POST", "/elsewhere", said),
        ("POST", UPLOAD, {"X-Flash-Visitor": new_token()}), ("POST", UPLOAD, {}),
        ("POST", UPLOAD, {"Idempotency-Key": "x" * 999}),
    ):  # fmt: skip
        assert str(file) in client.request(method, path, headers=headers).text
        with pytest.raises(NotFound):
            known.content(str(file), caller, "init_image")
    assert client.post(UPLOAD, headers=said).json() == [str(file)]
    assert known.content(str(file), caller, "init_image") == b"what was sent"
