"""Who asks over HTTP, and what they may see.

A token of 22 to 64 letters, digits, `-` and `_` is a person: a browser's page keeps one, a program sends its own in the
header `X-Flash-Visitor` or as the user name of HTTP Basic. Without one a request stands for itself alone, and what
comes of it is found again by its id, which nobody can guess. On a page of one's own everybody is its owner.
"""

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from studio.domain.errors import InvalidRequest, NotFound
from studio.settings import Settings

VISITOR_HEADER = "X-Flash-Visitor"
IDEMPOTENCY_HEADER = "Idempotency-Key"
_MAX_KEY = 255
LOCAL = "local"
"""Who uses the command line, the library, or the API of a page of their own."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22,64}")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """`visitor` owns what comes of the request; `owner` is whose things it may see and stop, None for everybody's. It
    `is_named` where the request says who sends it, so that later ones can say the same."""

    visitor: str
    owner: str | None
    is_named: bool = False

    def check_may_see(self, visitor: str, message: str) -> None:
        """Raises NotFound, with `message`, for what belongs to another `visitor`."""
        if self.owner is not None and visitor != self.owner:
            raise NotFound(message, "It may belong to somebody else.")


def new_token() -> str:
    return secrets.token_urlsafe(24)


def is_token(value: Any) -> bool:
    """Whether `value` could have been made by `new_token`; short ones would be guessable."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def visitor_of(token: Any) -> str:
    """The name under which the bearer of `token` owns jobs and pictures; nobody's for what is no token. A hash: a
    picture that is passed on must not hand over the key to all the others."""
    return hashlib.sha256(token.encode()).hexdigest()[:32] if is_token(token) else ""


def caller_of(request: Request, settings: Settings) -> Caller:
    """Who sends `request`."""
    names = request.headers.get(VISITOR_HEADER, ""), basic_of(request.headers.get("authorization", ""))[0]
    visitor = visitor_of(next(filter(is_token, names), ""))
    is_named = any(map(is_token, names))
    if settings.is_local:  # everything is the owner's there, whoever sends a key with it
        return Caller(visitor=visitor or LOCAL, owner=None, is_named=is_named)
    visitor = visitor or visitor_of(idempotency_key(request)) or visitor_of(new_token())
    return Caller(visitor=visitor, owner=visitor, is_named=is_named)


def idempotency_key(request: Request) -> str:
    """What the client calls its request, so that it can be sent again without being done twice; "" if it does not. One
    that could be a token is one, for want of another: whoever sends it again is the same.

    Raises:
        InvalidRequest: it is longer than anybody needs.
    """
    key = request.headers.get(IDEMPOTENCY_HEADER, "")
    if len(key) > _MAX_KEY:
        raise InvalidRequest(
            f"The idempotency key has {len(key)} characters; at most {_MAX_KEY} are kept.",
            "Send a UUID.", "idempotency_key",
        )  # fmt: skip
    return key


def basic_of(header: str) -> tuple[str, str]:
    """User name and password of HTTP Basic (RFC 7617); two empty texts where the header is none."""
    kind, _, encoded = header.partition(" ")
    if kind.lower() != "basic":
        return "", ""
    try:
        name, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password
