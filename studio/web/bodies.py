"""The bodies of requests: JSON, or a form with files. None is read beyond its limit into memory."""

import json
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, cast

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.domain.errors import InvalidRequest
from studio.web.refusals import Refused

JSON = "application/json"
FORM = "multipart/form-data"
MAX_JSON_BYTES = 64 * 2**20
"""Pictures in it are base64: one of 4096 px and its mask."""
MAX_FILE_BYTES = 50 * 2**20
MAX_FORM_BYTES = 2 * MAX_FILE_BYTES + 2**20
"""A picture, its mask, and the rest of the form."""
DEEPEST = 32
"""How far values may lie inside each other; no request needs half of it."""
_MAX_PARTS = 100
_HEARD_OUT = 4
"""So many times the limit is read of a body that is too large: a client that is still sending hears no refusal."""


async def read_json(request: Request) -> dict[str, Any]:
    """The object in the body.

    Raises:
        Refused: it is of another content type, larger than `MAX_JSON_BYTES`, no JSON, or deeper than `DEEPEST`.
        InvalidRequest: it is JSON, and no object.
    """
    _check_type(request, JSON)
    return await run_in_threadpool(_object_in, await read_bytes(request))


async def read_bytes(request: Request) -> bytes:
    """The body as it is.

    Raises:
        Refused: it is larger than `MAX_JSON_BYTES`.
    """
    return b"".join([chunk async for chunk in _limited(request, MAX_JSON_BYTES)])


class Bounded:
    """ASGI app: `app`, from which bodies are kept that are larger than those of our own API, which programs that it is
    made of may have no limit for. They are read whole before it is asked."""

    def __init__(self, app: ASGIApp, is_bounded: Callable[[Scope], bool] = lambda _: True) -> None:
        self._app = app
        self._is_bounded = is_bounded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._is_bounded(scope):
            await self._app(scope, receive, send)
            return
        try:
            body = await read_bytes(Request(scope, receive))
        except ClientDisconnect:
            return
        except Refused as error:
            said = {"error": {"message": str(error)}}
            await JSONResponse(said, error.status, error.headers)(scope, receive, send)
            return
        await self._app(scope, _again(body, receive), send)


def _again(body: bytes, receive: Receive) -> Receive:
    """What `receive` gives, from the beginning, where `body` was read of it already."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return first.pop() if first else await receive()

    return received


async def read_form(request: Request) -> list[tuple[str, bytes | str]]:
    """The fields of a form with their names: files as bytes, all else as text.

    Raises:
        Refused: it is of another content type, it is too large, or a file is larger than `MAX_FILE_BYTES`.
        InvalidRequest: it is no form.
    """
    _check_type(request, FORM)
    body = _limited(request, MAX_FORM_BYTES)
    parser = MultiPartParser(request.headers, body, max_files=_MAX_PARTS, max_fields=_MAX_PARTS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequest(f"The form cannot be read: {error.message}", f"Send it as {FORM}.") from None
    try:
        return [(name, await _content(value)) for name, value in form.multi_items()]
    finally:
        await form.close()


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        values: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "not_json", "The body is no JSON.", "Send one JSON object in UTF-8.") from None
    if not isinstance(values, dict):
        raise InvalidRequest("The body is no JSON object.", "Send fields by name, in braces.")
    if _is_deep(values):
        raise Refused(400, "too_deep", f"Values lie more than {DEEPEST} deep inside each other.", "Flatten them.")
    return cast(dict[str, Any], values)


async def _content(value: UploadFile | str) -> bytes | str:
    if isinstance(value, str):
        return value
    if (value.size or 0) > MAX_FILE_BYTES:
        raise _too_large("A file of the form", MAX_FILE_BYTES)
    return await value.read()


async def _limited(request: Request, limit: int) -> AsyncGenerator[bytes]:
    """The body as it comes, as far as it may go."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            yield chunk
        elif size > _HEARD_OUT * limit:
            break
    if size > limit:
        raise _too_large("The body", limit)


def _check_type(request: Request, expected: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != expected:
        raise Refused(
            415, "wrong_content_type", f"The body is {given[:100] or 'of no content type'}; it must be {expected}.",
            f"Send the header Content-Type: {expected}." if expected == JSON else "Send it as a form with files.",
        )  # fmt: skip


def _too_large(what: str, limit: int) -> Refused:
    return Refused(
        413, "too_large", f"{what} has more than {limit // 2**20} MB.", "Send smaller pictures.",
        {"Connection": "close"},
    )  # fmt: skip


def _is_deep(value: Any) -> bool:
    layer: list[Any] = [value]
    for _ in range(DEEPEST):
        layer = [inner for each in layer for inner in _inside(each)]
        if not layer:
            return False
    return True


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast(dict[str, Any], value).values()
    return cast(list[Any], value) if isinstance(value, list) else ()
