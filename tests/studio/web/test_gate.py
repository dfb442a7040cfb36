"""The gate: who is let in, who is not, and that it cannot be tried for long."""

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from studio.settings import Settings
from studio.web import gate
from studio.web.gate import COOKIE, LOCKED_S, MAX_TRIES, Gate

PASSWORD = "correct horse ünïcode"
HTML = {"Accept": "text/html"}

Enter = Callable[..., TestClient]


@pytest.fixture
def enter() -> Iterator[Enter]:
    """A client of a studio with these settings."""
    opened: list[TestClient] = []

    def of(password: str = PASSWORD, host: str = "studio.lan", **settings: object) -> TestClient:
        said = PlainTextResponse
        routes = [
            Route("/", lambda _: said("page"), methods=["GET", "POST", "DELETE"]),
            Route("/health", lambda _: said("alive")),
            Mount("/gradio_api", routes=[Route("/startup-events", lambda _: said("started")), Route("/call", _called)]),
        ]
        chosen = Settings.model_validate({"share": True, "password": password, **settings})
        app = Starlette(routes=routes, middleware=[Middleware(Gate, settings=chosen, password=password)])
        client = TestClient(app, base_url=f"http://{host}", client=("10.0.0.9", 1), follow_redirects=False)
        opened.append(client)
        return client

    yield of
    for client in opened:
        client.close()


def _called(_: Request) -> PlainTextResponse:
    return PlainTextResponse("called")


def log_in(client: TestClient, password: str, **headers: str) -> Any:
    return client.post("/login", data={"username": "anybody", "password": password}, headers=headers)


def test_without_the_password_nothing_is_served_but_the_question(enter: Enter) -> None:
    client = enter()
    for path in ("/", "/gradio_api/call", "/nowhere", "/gradio_api/startup-events/x"):
        answer = client.get(path)
        assert answer.status_code == 401 and "password" in answer.json()["error"]["message"]
        assert answer.headers["www-authenticate"].startswith("Basic")
        page = client.get(path, headers=HTML)
        assert page.status_code == 401 and "www-authenticate" not in page.headers
        assert 'type="password"' in page.text and page.text != "page"
    assert client.post("/").status_code == client.delete("/").status_code == 401
    assert client.get("/health").text == "alive" and client.get("/gradio_api/startup-events").text == "started"


@pytest.mark.parametrize(
    "header",
    [f"Bearer {PASSWORD}", f"bearer {PASSWORD}", f"Basic {base64.b64encode(f'me:{PASSWORD}'.encode()).decode()}"],
)
def test_programs_bring_it_with_each_request(enter: Enter, header: str) -> None:
    headers = {"Authorization": header.encode()}
    assert enter().get("/gradio_api/call", headers=headers).text == "called"  # type: ignore[arg-type]


def test_a_browser_brings_it_once(enter: Enter) -> None:
    client = enter()
    answer = log_in(client, PASSWORD, Accept="text/html")
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    told = answer.headers["set-cookie"].lower()
    assert "httponly" in told and "samesite=lax" in told and "secure" not in told
    assert client.get("/").text == "page"
    assert "secure" in log_in(enter(), PASSWORD, **{"X-Forwarded-Proto": "https"}).headers["set-cookie"].lower()


def test_a_cookie_of_another_password_or_time_or_hand_is_none(enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    client = enter()
    log_in(client, PASSWORD)
    cookie = client.cookies[COOKIE]
    ends, _, signature = cookie.partition(".")
    for forged in (f"{int(ends) + 1}.{signature}", ends, f".{signature}", "x.y", f"{ends}.{signature[:-1]}", "ü.ü"):
        assert enter().get("/", headers={"Cookie": f"{COOKIE}={forged}".encode()}).status_code == 401  # type: ignore
    assert enter(password="another password").get("/", headers={"Cookie": f"{COOKIE}={cookie}"}).status_code == 401
    again = {"Cookie": f"{COOKIE}={cookie}"}
    assert enter().get("/", headers=again).text == "page"  # over a restart
    monkeypatch.setattr(gate.time, "time", lambda: int(ends) + 1)
    assert enter().get("/", headers=again).status_code == 401


@pytest.mark.parametrize("how", ["form", "header"])
def test_it_cannot_be_tried_for_long(enter: Enter, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = enter()

    def tried(password: str) -> Any:
        if how == "form":
            return log_in(client, password)
        return client.get("/", headers={"Authorization": f"Bearer {password}".encode()})  # type: ignore[arg-type]

    assert [tried(f"wrong {n}").status_code for n in range(MAX_TRIES)] == [401] * MAX_TRIES
    locked = tried(PASSWORD)
    assert locked.status_code == 429 and 0 < int(locked.headers["retry-after"]) <= LOCKED_S + 1
    now = gate.time.monotonic()
    monkeypatch.setattr(gate.time, "monotonic", lambda: now + LOCKED_S + 1)
    assert tried(PASSWORD).is_success


def test_one_who_tries_locks_out_nobody_else(enter: Enter) -> None:
    client = enter()
    for n in range(MAX_TRIES):
        log_in(client, f"wrong {n}")
    other = TestClient(client.app, base_url="http://studio.lan", client=("10.0.0.10", 1))
    assert log_in(client, PASSWORD).status_code == 429 and log_in(other, PASSWORD).is_success


SITES = [
    ({"Origin": "http://evil.example"}, True),
    ({"Origin": "null"}, True),
    ({"Origin": "http://studio.lan:8000"}, True),
    ({"Origin": "http://["}, True),
    ({"Sec-Fetch-Site": "cross-site"}, True),
    ({"Origin": "http://studio.lan"}, False),
    ({"Origin": "https://abc.gradio.live", "X-Forwarded-Host": "abc.gradio.live"}, False),
    ({"Sec-Fetch-Site": "same-origin"}, False),
    ({}, False),
]


@pytest.mark.parametrize(("headers", "is_foreign"), SITES)
@pytest.mark.parametrize("password", ["", PASSWORD])
def test_a_page_of_another_site_changes_nothing(
    enter: Enter, headers: dict[str, str], is_foreign: bool, password: str
) -> None:
    client = enter(password)
    if password:
        assert log_in(client, password).is_success
    for sent in (client.post("/", headers=headers), client.request("DELETE", "/", headers=headers, content=b"")):
        assert sent.status_code == (403 if is_foreign else 200)
    assert client.post("/", headers={**headers, "Content-Type": "text/plain"}, content="{}").is_success != is_foreign


def test_a_name_of_somebodys_that_leads_here_is_refused_on_a_page_of_ones_own(enter: Enter) -> None:
    for host in ("localhost", "127.0.0.1:7860", "[::1]:80", "LOCALHOST:1"):
        assert enter("", host=host, share=False).get("/").text == "page"
    for host in ("evil.example", "127.0.0.1.evil.example", "192.168.0.7"):
        assert enter("", host=host, share=False).get("/").status_code == 400
    named = {"share": False, "allowed_hosts": "Studio.Example, other"}
    assert enter("", host="studio.example:443", **named).get("/").text == "page"
    assert enter("", host="evil.example", **named).get("/").status_code == 400


def test_what_went_wrong_is_said_on_the_page(enter: Enter) -> None:
    answer = log_in(enter(), "<b>wrong</b>", **HTML)
    assert answer.status_code == 401 and "That is not the password." in answer.text and "<b>" not in answer.text
    assert re.search(r"<label>Password <input", answer.text)
