"""Every way in which a language model's service fails has a name, and none tells the key. Against the real client."""

import email.utils
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.domain.chat import ChatFailed
from studio.groq_chat import GroqChat, without_thoughts
from studio.settings import Settings
from tests.studio.groq_server import KEY, GroqServer, Reply, groq_server, problem, said

TEXT = ("openai/gpt-oss-20b", "openai/gpt-oss-120b")
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GroqServer]:
    with groq_server() as server:
        monkeypatch.setenv("GROQ_API_KEY", KEY)
        monkeypatch.setenv("GROQ_BASE_URL", server.url)
        yield server


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[GroqChat]:
    chat = GroqChat(Settings(data_dir=tmp_path))
    yield chat
    chat.close()


def failure(chat: GroqChat, **settings: float) -> ChatFailed:
    with pytest.raises(ChatFailed) as caught:
        chat.ask(TEXT, HELLO, **settings)
    assert KEY not in f"{caught.value!r} {caught.value} {caught.value.headers} {vars(caught.value)}"
    # The client's own errors hold on to the request, and so to the key.
    assert type(caught.value.__context__).__module__.partition(".")[0] not in ("groq", "httpx")
    return caught.value


def test_an_answer_comes_with_what_it_took(server: GroqServer, chat: GroqChat) -> None:
    answer = chat.ask(TEXT, HELLO, as_json=True)
    assert (answer.text, answer.model, answer.prompt_tokens, answer.completion_tokens) == (
        "An answer.", TEXT[0], 100, 50,
    )  # fmt: skip
    assert server.requests[0]["reasoning_effort"] == "low"


@pytest.mark.parametrize(
    ("status", "reason", "may_pass"),
    [
        (400, "rejected", False), (401, "refused", False), (403, "refused", False), (404, "model_gone", False),
        (408, "server", True), (409, "server", True), (413, "too_large", False), (422, "rejected", False),
        (424, "server", True), (429, "busy", True), (498, "busy", True), (499, "server", True), (500, "server", True),
        (502, "server", True), (503, "server", True),
    ],
)  # fmt: skip
def test_each_status_has_a_reason_and_is_asked_once(
    server: GroqServer, chat: GroqChat, status: int, reason: str, may_pass: bool
) -> None:
    server.models = ["openai/gpt-oss-20b"]
    server.answer = lambda request, place: problem(status, f"bad key {KEY}")
    error = failure(chat)
    assert (error.reason, error.may_pass, error.status) == (reason, may_pass, status)
    # A 400 may be about what was wished for beside the question, so that is asked once more without.
    assert len(server.requests) == (2 if status == 400 else 1)


@pytest.mark.parametrize(
    ("told", "seconds"), [("0", 0), ("1", 1), ("120", 120), ("3600", 3600), ("-5", 0), ("soon", None), ("inf", None)]
)
def test_what_it_asks_to_wait_is_told_as_it_is(
    server: GroqServer, chat: GroqChat, told: str, seconds: float | None
) -> None:
    server.answer = lambda request, place: problem(429, retry_after=told)
    assert failure(chat).retry_after == seconds
    server.answer = lambda request, place: problem(429)
    assert failure(chat).retry_after is None


def test_a_date_to_wait_for_is_seconds_from_now(server: GroqServer, chat: GroqChat) -> None:
    date = email.utils.formatdate(time.time() + 90, usegmt=True)
    server.answer = lambda request, place: problem(429, retry_after=date)
    assert failure(chat).retry_after == pytest.approx(90, abs=3)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"<html>Sign in to the hotel's network</html>", headers={"Content-Type": "text/html"}),
        Reply(body=b""), Reply(body=b"[" * 100_000), Reply(body=[]), Reply(body={"choices": []}), Reply(body={}),
        Reply(body={"choices": [None]}), said(None), said(""), said("  "), said("<think>Hm, what could"),
        Reply(body=b'{"choices": "' + b"x" * 2_000_000 + b'"}'),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_garbage(server: GroqServer, chat: GroqChat, reply: Reply) -> None:
    server.answer = lambda request, place: reply
    error = failure(chat)
    assert (error.reason, error.may_pass) == ("garbage", True)


def test_a_broken_connection_and_an_answer_that_takes_for_ever(server: GroqServer, chat: GroqChat) -> None:
    server.answer = lambda request, place: Reply(drop=True)
    assert failure(chat).reason == "unreachable"
    for reply in (Reply(body=b"{}", pause=True), Reply(body=b" " * 500 + b"{}", byte_s=0.05)):
        server.answer = lambda request, place, reply=reply: reply
        began = time.monotonic()
        assert failure(chat, timeout_s=1.0).reason == "unreachable"
        assert time.monotonic() - began < 3


def test_nobody_there(server: GroqServer, chat: GroqChat, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("http://127.0.0.1:9", "http://no-such-host.invalid", server.url.replace("http:", "https:")):
        monkeypatch.setenv("GROQ_BASE_URL", address)
        assert failure(chat).reason == "unreachable"


def test_without_a_key_or_offline_nothing_is_asked(
    server: GroqServer, chat: GroqChat, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    away = GroqChat(Settings(data_dir=tmp_path, offline=True))
    assert (away.missing, failure(away).reason) == ("offline", "offline")
    monkeypatch.delenv("GROQ_API_KEY")
    assert (chat.missing, failure(chat).reason) == ("no_key", "no_key")
    assert server.requests == []


def test_a_wrong_key_is_refused_and_another_one_taken_at_once(
    server: GroqServer, chat: GroqChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "gsk_another"
    assert failure(chat).reason == "refused"
    monkeypatch.setenv("GROQ_API_KEY", "gsk_another")
    assert chat.ask(TEXT, HELLO).text == "An answer."


def test_a_retired_model_is_passed_over_and_that_is_logged(
    server: GroqServer, chat: GroqChat, caplog: pytest.LogCaptureFixture
) -> None:
    server.models = ["openai/gpt-oss-120b"]
    with caplog.at_level(logging.WARNING):
        assert chat.ask(TEXT, HELLO).model == "openai/gpt-oss-120b"
    assert "openai/gpt-oss-20b" in caplog.text
    assert [request["model"] for request in server.requests] == ["openai/gpt-oss-120b"]


def test_one_that_is_listed_and_gone_all_the_same(server: GroqServer, chat: GroqChat) -> None:
    server.models = list(TEXT)
    server.answer = lambda request, place: (
        problem(404, "gone", "model_not_found") if request["model"] == TEXT[0] else said("Here.")
    )
    assert [chat.ask(TEXT, HELLO).model for _ in range(2)] == [TEXT[1]] * 2
    assert [request["model"] for request in server.requests] == [TEXT[0], TEXT[1], TEXT[1]]


def test_wishes_that_a_model_does_not_take_are_dropped(server: GroqServer, chat: GroqChat) -> None:
    server.answer = lambda request, place: (
        problem(400, "unknown field") if "reasoning_effort" in request else said("Plain.")
    )
    assert chat.ask(TEXT, HELLO, as_json=True).text == "Plain."


def test_an_address_as_other_programs_are_given_it(
    server: GroqServer, chat: GroqChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROQ_BASE_URL", f"{server.url}/openai/v1/")
    assert chat.ask(TEXT, HELLO).text == "An answer."


def test_the_key_is_in_no_log(server: GroqServer, chat: GroqChat, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        chat.ask(TEXT, HELLO)
        server.answer = lambda request, place: problem(500, f"about {KEY}")
        failure(chat)
    assert KEY not in caplog.text


def test_thoughts_are_no_part_of_an_answer() -> None:
    assert without_thoughts("<think>hm</think>\n A cat. ") == "A cat."
    assert without_thoughts("A cat.") == "A cat."
    assert without_thoughts("<think>hm") == ""
