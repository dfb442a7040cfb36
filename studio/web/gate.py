"""The gate before everything that the studio serves, Gradio's own routes with it: from where one may ask, and whether
one knows the password.

Gradio's `auth` guards only its own routes, knows no lockout, and a page of another site can send it forms. This stands
before all of it: it refuses host names that are not ours (a name of somebody's that leads here: DNS rebinding), changes
that a page of another site asks for (CSRF), and, where there is a password, everybody who does not bring it.
"""

import hashlib
import hmac
import logging
import time
from collections import deque
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from studio.settings import LOOPBACK, Settings
from studio.web.access import basic_of
from studio.web.login_page import login_page

logger = logging.getLogger(__name__)

COOKIE = "flash-studio"
LOGIN = "/login"
MAX_TRIES = 10
LOCKED_S = 600.0
"""So many wrong passwords from one address in so many seconds, and it has to wait until they are over."""
_COOKIE_S = 30 * 24 * 3600
_MAX_FORM = 10_000
_MAX_ADDRESSES = 10_000
_SAFE = ("GET", "HEAD", "OPTIONS")
_OPEN = ("/health", "/health/ready", "/gradio_api/startup-events")
"""Needs no password: who watches over the studio has none, and Gradio asks the last of itself when it starts."""


class Gate:
    """ASGI middleware. `password` is "" where none is needed."""

    def __init__(self, app: ASGIApp, settings: Settings, password: str) -> None:
        self._app = app
        self._hosts = _hosts(settings)
        self._password = password
        self._key = hashlib.sha256(f"cookie of {password}".encode()).digest()
        self._tries = Tries()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        answer = await self._answer(scope, receive)
        await (answer or self._app)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """What is said instead of letting somebody in; None where the way is free."""
        headers = Headers(scope=scope)
        if self._hosts and _name_of(headers.get("host", "")) not in self._hosts:
            return _refusal(400, "This host name is not known here.", "Add it to FLASH_STUDIO_ALLOWED_HOSTS.")
        if scope.get("method", "GET") not in _SAFE and _is_of_another_site(headers):
            return _refusal(403, "A page of another site asked for this.", "Ask from the studio's own page.")
        if not self._password:
            return None
        if scope["path"] == LOGIN:
            return await self._login(Request(scope, receive))
        if scope["path"] in _OPEN or self._has_cookie(Request(scope).cookies):
            return None
        return self._check_header(scope, headers)

    async def _login(self, request: Request) -> Response:
        if request.method != "POST":
            return HTMLResponse(login_page(), 200)
        if (wait := self._tries.wait_s(_address(request.scope))) > 0:
            return _locked(wait, is_page=_wants_page(request.headers))
        body = await request.body()
        given = parse_qs(body[:_MAX_FORM].decode("utf-8", "replace")).get("password", [""])[0]
        if not self._is_right(given, request.scope):
            said = "That is not the password."
            is_page = _wants_page(request.headers)
            return HTMLResponse(login_page(said), 401) if is_page else _refusal(401, said, "Ask whoever hosts it.")
        wants_page = _wants_page(request.headers)
        answer = RedirectResponse("/", 303) if wants_page else JSONResponse({"success": True})
        is_secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
        answer.set_cookie(
            COOKIE, self._cookie(), max_age=_COOKIE_S, httponly=True, samesite="lax", secure=is_secure, path="/"
        )
        return answer

    def _check_header(self, scope: Scope, headers: Headers) -> Response | None:
        given = _password_in(headers.get("authorization", ""))
        if given:
            if (wait := self._tries.wait_s(_address(scope))) > 0:
                return _locked(wait)
            if self._is_right(given, scope):
                return None
        if scope["type"] == "http" and scope["method"] in _SAFE and _wants_page(headers):
            return HTMLResponse(login_page(), 401)
        return _refusal(
            401,
            "This studio asks for a password.",
            "Send it as Authorization: Bearer PASSWORD, or as the password of HTTP Basic.",
            {"WWW-Authenticate": 'Basic realm="Flash Studio", charset="UTF-8"'},
        )

    def _is_right(self, given: str, scope: Scope) -> bool:
        """Whether it is the password; a wrong one is counted. Takes as long for every wrong one."""
        if hmac.compare_digest(_digest(given), _digest(self._password)):
            return True
        address = _address(scope)
        self._tries.count(address)
        logger.warning("a wrong password from %s", address)
        return False

    def _cookie(self) -> str:
        ends = f"{int(time.time()) + _COOKIE_S}"
        return f"{ends}.{self._signed(ends)}"

    def _has_cookie(self, cookies: Mapping[str, str]) -> bool:
        ends, _, signature = cookies.get(COOKIE, "").partition(".")
        is_ours = hmac.compare_digest(signature.encode(), self._signed(ends).encode())
        return is_ours and ends.isdecimal() and int(ends) > time.time()

    def _signed(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()


class Tries:
    """Wrong passwords by address, of the last `LOCKED_S` seconds."""

    def __init__(self) -> None:
        self._of: dict[str, deque[float]] = {}

    def wait_s(self, address: str) -> float:
        """How long `address` has to wait until it may try again, in seconds; 0 if it need not."""
        times = self._recent(address)
        return max(0.0, times[0] + LOCKED_S - time.monotonic()) if len(times) >= MAX_TRIES else 0.0

    def count(self, address: str) -> None:
        """One more from `address`."""
        times = self._recent(address)
        times.append(time.monotonic())
        self._of[address] = times
        while len(self._of) > _MAX_ADDRESSES:
            self._of.pop(next(iter(self._of)))

    def _recent(self, address: str) -> deque[float]:
        times = self._of.get(address, deque[float](maxlen=MAX_TRIES))
        while times and times[0] < time.monotonic() - LOCKED_S:
            times.popleft()
        return times


def _hosts(settings: Settings) -> frozenset[str]:
    """The host names that are answered to; none means all: a password guards against names that lead here, since a
    browser keeps cookies by name."""
    given = settings.hosts
    return frozenset((*LOOPBACK, *given)) if given or (settings.is_local and not settings.password) else frozenset()


def _name_of(host: str) -> str:
    """A host header without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_of_another_site(headers: Headers) -> bool:
    """Whether a browser says that the page which sends this is not ours. Programs say nothing."""
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "") in ("cross-site", "same-site")
    try:
        place = urlsplit(origin).netloc.lower()
    except ValueError:
        return True
    ours = {headers.get(name, "").lower() for name in ("host", "x-forwarded-host")} - {""}
    return place not in ours


def _password_in(header: str) -> str:
    kind, _, given = header.partition(" ")
    if kind.lower() != "bearer":
        return basic_of(header)[1]
    try:
        return given.strip().encode("latin-1").decode()  # headers are read as Latin-1, and mostly sent as UTF-8
    except UnicodeDecodeError:
        return given.strip()


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _wants_page(headers: Headers) -> bool:
    return "text/html" in headers.get("accept", "")


def _locked(wait: float, *, is_page: bool = False) -> Response:
    said = f"Too many wrong passwords; try again in {max(1, round(wait / 60))} min."
    headers = {"Retry-After": str(round(wait) + 1)}
    return HTMLResponse(login_page(said), 429, headers) if is_page else _refusal(429, said, "", headers)


def _refusal(status: int, message: str, hint: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"message": message, "hint": hint}}, status, headers)
