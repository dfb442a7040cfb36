"""The files that Gradio was sent, and by whom: of a file that a call names, this alone says whether the caller may.

Gradio takes any path inside its cache for one that was uploaded, whoever uploaded it, and pictures that were drawn for
others lie there, too.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.domain.errors import InvalidRequest, NotFound, StudioError
from studio.settings import Settings
from studio.web.access import VISITOR_HEADER, Caller, caller_of
from studio.web.given_pictures import called

UPLOAD = "/gradio_api/upload"
_MOST = 10_000
"""So many are known, the newest ones; a client names its file right after it sent it."""


class Uploads:
    """What was sent since the studio is up. On a page of one's own everything is the owner's."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str | None], None] = {}
        self._lock = Lock()

    def note(self, path: str, caller: Caller) -> None:
        """Remember that `caller` sent what is kept at `path`."""
        key = (os.path.abspath(path), caller.owner)
        with self._lock:
            self._known.pop(key, None)
            self._known[key] = None
            while len(self._known) > _MOST:
                self._known.pop(next(iter(self._known)))

    def content(self, path: object, caller: Caller, field: str) -> bytes:
        """What `caller` sent, and names by its `path` as the picture of `field`.

        Raises:
            NotFound: they sent no such file; whatever else may be there is not looked at.
            InvalidRequest: it is empty.
        """
        place = os.path.abspath(path) if isinstance(path, str) else ""
        with self._lock:
            is_known = (place, caller.owner) in self._known
        try:
            content = Path(place).read_bytes() if is_known else None
        except OSError:  # what was sent is deleted after an hour
            content = None
        if content is None:
            same = f", with the same {VISITOR_HEADER}" if caller.owner is not None else ""
            raise NotFound(f"{called(field)} is no file that you sent.", f"Send the file itself{same}.")
        if not content:
            raise InvalidRequest(f"{called(field)} is an empty file.", "Choose another picture.", field)
        return content


class UploadsNoted:
    """ASGI middleware that notes in `uploads` what Gradio answers to whoever sends it files."""

    def __init__(self, app: ASGIApp, settings: Settings, uploads: Uploads) -> None:
        self._app = app
        self._settings = settings
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == UPLOAD:
            send = _heard(send, lambda answer: self._note(scope, answer))
        await self._app(scope, receive, send)

    def _note(self, scope: Scope, answer: bytes) -> None:
        try:
            caller = caller_of(Request(scope), self._settings)
        except StudioError:  # nobody who could be told apart
            return
        if caller.owner is not None and not caller.is_named:  # a browser: only programs come back for what they sent
            return
        paths: list[str] = json.loads(answer)
        for path in paths:
            self._uploads.note(path, caller)


def _heard(send: Send, on_answer: Callable[[bytes], None]) -> Send:
    """`send`, and `on_answer` with the body of a 200 before its end goes out."""
    status, parts = 0, list[bytes]()

    async def heard(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body" and status == 200:
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                on_answer(b"".join(parts))
        await send(message)

    return heard
