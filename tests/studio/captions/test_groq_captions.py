"""Captions from a service that misbehaves in every way, through the real client: none is lost, none is paid twice."""

import email.utils
import io
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines.pocket.captioner import describe
from studio.captions.groq import MAX_REJECTED, GroqCaptioner
from studio.captions.ledger import Ledger, Prices
from studio.captions.limits import Limiter, Limits
from studio.captions.payload import MAX_BYTES, data_url
from studio.captions.shards import Shard
from studio.captions.templates import template_of
from studio.captions.work import Done, Wishes, run
from studio.domain.captions import CaptioningStopped, Later, Row, Status, Unfit, Unusable, row_of
from studio.groq_chat import GroqChat
from studio.settings import Settings
from tests.studio.captions.scenes import chosen_in, digest, scenes
from tests.studio.conftest import Cli
from tests.studio.groq_server import KEY, GroqServer, Reply, groq_server, opened, picture_in, problem, said

GOOD = "A large red ring stands on a plain white ground, drawn flat."
Answering = Callable[[dict[str, Any], int], Reply]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GroqServer]:
    with groq_server(answer=lambda request, place: said(GOOD)) as server:
        monkeypatch.setenv("GROQ_API_KEY", KEY)
        monkeypatch.setenv("GROQ_BASE_URL", server.url)
        yield server


@pytest.fixture
def captioner(tmp_path: Path) -> Iterator[Callable[..., GroqCaptioner]]:
    chats: list[GroqChat] = []

    def make(timeout_s: float = 5.0, limits: Limits | None = None, window_s: float = 60.0) -> GroqCaptioner:
        limiter = Limiter(tmp_path / "data" / "limits.db", limits or Limits(), window_s)
        chats.append(GroqChat(Settings(data_dir=tmp_path / "data")))
        return GroqCaptioner(chats[-1], ("qwen/qwen3.6-27b",), template_of("short"), limiter, timeout_s)

    yield make
    for chat in chats:
        chat.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scenes(tmp_path / "p", 3)
    return tmp_path / "p"


def caption_all(folder: Path, captioner: GroqCaptioner, **wishes: Any) -> tuple[Done, list[Row]]:
    names = sorted(path.name for path in folder.iterdir())
    path = folder.parent / "shards" / "all.jsonl"
    max_cost = wishes.pop("max_cost", None)
    ledger = Ledger(path.parent, captioner.template, Prices(prompt=1.0, completion=1.0), max_cost)
    try:
        with Shard(path, is_paid=True) as shard:
            done = run(folder, names, captioner, shard, ledger, Wishes(**wishes))
    finally:
        rows = [row_of(line) for line in path.read_bytes().splitlines()]
    return done, rows


def flaky(seed: int) -> Answering:
    """Four of ten requests go wrong, each in a way of its own; the others are answered with what the picture shows."""
    chance = random.Random(seed)
    date = lambda: email.utils.formatdate(time.time() + 1, usegmt=True)  # noqa: E731
    wrongs: list[Callable[[], Reply]] = [
        lambda: problem(429, retry_after="0"), lambda: problem(429, retry_after="1"),
        lambda: problem(429, retry_after=date()), lambda: problem(429, retry_after="soon"), lambda: problem(498),
        lambda: problem(408), lambda: problem(422), lambda: problem(424), lambda: problem(499), lambda: problem(500),
        lambda: problem(502), lambda: Reply(status=503, body=b"<html>Bad gateway</html>"), lambda: Reply(drop=True),
        lambda: Reply(body=b"<html>Sign in</html>", headers={"Content-Type": "text/html"}), lambda: Reply(body=b""),
        lambda: Reply(body={"choices": []}), lambda: said(None), lambda: said("A red", finish="length"),
        lambda: said("<think>What could it be"), lambda: said("I'm sorry, but I can't help with that request."),
        lambda: said("red ring " * 60), lambda: said("x" * 900_000), lambda: said('{"caption": "a ring on white"}'),
    ]  # fmt: skip
    order: list[Callable[[], Reply]] = []
    lock = threading.Lock()

    def answer(request: dict[str, Any], place: int) -> Reply:
        with lock:
            if chance.random() < 0.4:
                if not order:
                    order.extend(chance.sample(wrongs, len(wrongs)))
                return order.pop()()
        return said(describe(opened(request)) or "no scene at all, it seems")

    return answer


@pytest.mark.slow
def test_two_hundred_pictures_and_a_flaky_server(
    server: GroqServer, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "p"
    paths = scenes(folder, 200, size=96)
    monkeypatch.setenv("FLASH_STUDIO_OFFLINE", "0")
    for name in ("REQUESTS_PER_MINUTE", "REQUESTS_PER_DAY", "TOKENS_PER_MINUTE", "TOKENS_PER_DAY"):
        monkeypatch.setenv(f"FLASH_STUDIO_GROQ_{name}", "0")
    server.answer = flaky(3)
    given = ("dataset", "caption", str(folder), "--captioner", "groq", "--parallel", "8", "--yes")
    code, out, err = cli(*given)
    assert out == f"{folder}-captions\n" and KEY not in err
    redo = str(tmp_path / "redo.jsonl")
    while code:  # as often as not a picture has met three answers in a row that are no caption, or was put off
        assert cli("dataset", "verify", str(folder), "--redo-list", redo)[0] == 1
        code = cli(*given, "--redo", redo)[0]
    code, out, err = cli("dataset", "merge", str(folder))
    assert (code, err) == (0, "200 captions written.\n")
    chosen, reading = chosen_in(tmp_path / "p-captions")
    rows = [row for row in reading.rows() if row.status is Status.DONE]
    assert Counter(row.digest for row in rows) == Counter(digest(path) for path in paths)  # none lost, none twice
    right = sum(chosen.row(digest(path)).caption == describe(Image.open(path)) for path in paths)
    assert right >= 196  # it sees them as JPEGs
    calls = len(server.requests)
    assert cli(*given)[0] == 0 and len(server.requests) == calls  # and nothing is asked again


@pytest.mark.parametrize(
    ("reply", "outcome", "calls"),
    [
        (lambda: problem(400, "bad picture"), Unfit, 2), (lambda: problem(401), CaptioningStopped, 1),
        (lambda: problem(403), CaptioningStopped, 1),
        (lambda: problem(404, code="model_not_found"), CaptioningStopped, 1), (lambda: problem(408), Later, 1),
        (lambda: problem(409), Later, 1), (lambda: problem(413), Unfit, 2), (lambda: problem(422), Unfit, 2),
        (lambda: problem(424), Later, 1), (lambda: problem(429), Later, 1), (lambda: problem(498), Later, 1),
        (lambda: problem(499), Later, 1), (lambda: problem(500), Later, 1), (lambda: problem(502), Later, 1),
        (lambda: problem(503), Later, 1), (lambda: Reply(drop=True), Later, 1),
        (lambda: Reply(body=b"{}", pause=True), Later, 1), (lambda: Reply(body=b" " * 900, byte_s=0.05), Later, 1),
        (lambda: Reply(body=b"<html></html>"), Later, 1), (lambda: Reply(body=b""), Later, 1),
        (lambda: Reply(body={"choices": []}), Later, 1), (lambda: said(None), Later, 1),
        (lambda: said("A ring", finish="length"), Unusable, 1), (lambda: said("<think>so"), Later, 1),
        (lambda: said("As an AI, I am unable to see it."), Unusable, 1),
        (lambda: said("x " * 450_000), Unusable, 1), (lambda: said("```json\n{}```"), Unusable, 1),
    ],
)  # fmt: skip
def test_each_failure_has_its_outcome(
    server: GroqServer,
    captioner: Callable[..., GroqCaptioner],
    folder: Path,
    reply: Callable[[], Reply],
    outcome: type[Exception],
    calls: int,
) -> None:
    server.answer = lambda request, place: reply()
    with pytest.raises(outcome) as caught:
        captioner(timeout_s=3.0).caption(folder / "0000.png")
    assert type(caught.value) is outcome and len(server.requests) == calls and KEY not in str(caught.value)


@pytest.mark.parametrize(("address", "outcome"), [("http://no-such-host.invalid", Later), ("https", Later)])
def test_nobody_there(
    server: GroqServer,
    captioner: Callable[..., GroqCaptioner],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    outcome: type[Exception],
) -> None:
    monkeypatch.setenv("GROQ_BASE_URL", server.url.replace("http:", "https:") if address == "https" else address)
    with pytest.raises(outcome):
        captioner(timeout_s=3.0).caption(folder / "0000.png")


@pytest.mark.parametrize(("told", "low", "high"), [("0", 0, 0), ("5", 5, 5), ("120", 120, 120), ("3600", 3600, 3600)])
def test_what_it_asks_to_wait_is_waited_by_all(
    server: GroqServer, captioner: Callable[..., GroqCaptioner], folder: Path, told: str, low: float, high: float
) -> None:
    server.answer = lambda request, place: problem(429, retry_after=told)
    with pytest.raises(Later) as caught:
        captioner().caption(folder / "0000.png")
    assert caught.value.is_for_all and low <= (caught.value.seconds or 0) <= high
    other = captioner()  # another process, as far as the limits know
    if high:
        with pytest.raises(Later) as caught:
            other.caption(folder / "0001.png")
        assert low - 4 <= (caught.value.seconds or 0) <= high
        assert len(server.requests) == 1


def test_a_wait_that_is_too_long_ends_the_work_and_one_that_is_not_is_kept(
    server: GroqServer, captioner: Callable[..., GroqCaptioner], folder: Path
) -> None:
    server.answer = lambda request, place: problem(429, retry_after="2") if place == 1 else said(GOOD)
    began = time.monotonic()
    done, rows = caption_all(folder, captioner(), max_wait_s=60)
    assert (done.made, len(rows), len(server.requests)) == (3, 3, 4)
    assert 2 <= time.monotonic() - began < 15
    (folder.parent / "shards" / "all.jsonl").unlink()
    server.answer = lambda request, place: problem(429, retry_after="3600")
    with pytest.raises(CaptioningStopped, match="longer than is waited here"):
        caption_all(folder, captioner(), max_wait_s=60)


def test_a_key_that_is_revoked_stops_all_at_once_and_another_goes_on(
    server: GroqServer, captioner: Callable[..., GroqCaptioner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "many"
    scenes(folder, 40)
    server.answer = lambda request, place: said(GOOD) if place < 10 else problem(401, f"Invalid {KEY}")
    with pytest.raises(CaptioningStopped, match="Check the key") as caught:
        caption_all(folder, captioner(), parallel=4)
    assert KEY not in str(caught.value) and 10 < len(server.requests) <= 10 + 4
    server.key, server.answer = "gsk_another", lambda request, place: said(GOOD)
    monkeypatch.setenv("GROQ_API_KEY", server.key)
    done, rows = caption_all(folder, captioner(), parallel=4)
    assert (done.made, done.had, len(rows)) == (30, 10, 40)
    text = (tmp_path / "shards" / "all.jsonl").read_text()
    assert KEY not in text and "gsk_another" not in text


def test_what_is_turned_down_each_time_is_not_the_picture(
    server: GroqServer, captioner: Callable[..., GroqCaptioner], tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    scenes(folder, 30)
    server.models = ["qwen/qwen3.6-27b"]
    server.answer = lambda request, place: problem(400, "this model takes no pictures")
    with pytest.raises(CaptioningStopped, match="takes no pictures"):
        caption_all(folder, captioner())
    assert len(server.requests) == 2 * MAX_REJECTED


def test_a_service_that_is_down_is_not_asked_for_ever(
    server: GroqServer, captioner: Callable[..., GroqCaptioner], tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    scenes(folder, 30)
    server.answer = lambda request, place: problem(503, "down")
    with pytest.raises(CaptioningStopped, match="attempts failed one after the other"):
        caption_all(folder, captioner(), parallel=4)
    assert len(server.requests) <= 24 + 4


def test_refused_answers_are_paid_three_times_at_most_and_told(
    server: GroqServer, captioner: Callable[..., GroqCaptioner], folder: Path
) -> None:
    server.answer = lambda request, place: said("I'm sorry, I can't describe people.")
    done, rows = caption_all(folder, captioner())
    assert (done.made, done.unusable, len(server.requests)) == (0, 9, 9)
    assert all(row.status is Status.UNUSABLE and row.prompt_tokens == 100 for row in rows)
    assert caption_all(folder, captioner())[0].failed == 3 and len(server.requests) == 9


def test_the_budget_holds_over_runs(
    server: GroqServer, captioner: Callable[..., GroqCaptioner], tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    scenes(folder, 20)
    cost = 150 / 1e6  # of a picture, at a dollar for a million tokens
    for _ in range(3):
        with pytest.raises(CaptioningStopped, match="is the limit"):
            caption_all(folder, captioner(), max_cost=7 * cost - 1e-9)
    assert len(server.requests) == 7
    assert caption_all(folder, captioner(), max_cost=1.0)[0].made == 13


@pytest.mark.parametrize("size", [(9000, 3000), (5900, 5900), (2500, 2500)])
def test_large_pictures_are_made_small_enough(tmp_path: Path, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
    path = tmp_path / "big.jpg"
    Image.fromarray(noise).resize(size, Image.Resampling.NEAREST).save(path, quality=60)
    url = data_url(path)
    assert len(url) <= MAX_BYTES
    with pytest.raises(Unfit):
        data_url(tmp_path / "none.png")


def test_what_a_file_knows_of_places_is_not_sent(
    server: GroqServer, captioner: Callable[..., GroqCaptioner], folder: Path
) -> None:
    image, exif = Image.open(folder / "0000.png"), Image.Exif()
    exif[0x010E] = "somebody's home"
    image.save(folder / "0000.jpg", exif=exif)
    captioner().caption(folder / "0000.jpg")
    sent = Image.open(io.BytesIO(picture_in(server.requests[0])))
    assert not sent.getexif() and b"home" not in picture_in(server.requests[0])


def test_four_workers_keep_to_one_limit(
    server: GroqServer, captioner: Callable[..., GroqCaptioner], tmp_path: Path
) -> None:
    """The server allows 20 in any 2 seconds, and says no to the 21st; nobody is told no."""
    folder = tmp_path / "many"
    scenes(folder, 60)
    times: list[float] = []
    refused = 0

    def answer(request: dict[str, Any], place: int) -> Reply:
        nonlocal refused
        with server.lock:
            now = time.monotonic()
            times.append(now)
            if sum(now - 2.0 < each for each in times) > 20:
                refused += 1
                return problem(429, retry_after="2")
        return said(GOOD)

    server.answer = answer
    names = sorted(path.name for path in folder.iterdir())
    limits = Limits(requests_per_minute=20)

    def work(index: int) -> None:
        shard_path = tmp_path / "shards" / f"shard-{index}.jsonl"
        one = captioner(limits=limits, window_s=2.0)
        with Shard(shard_path, is_paid=True) as shard:
            ledger = Ledger(shard_path.parent, one.template)
            run(folder, names[index::4], one, shard, ledger, Wishes(parallel=2))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (refused, len(times)) == (0, 60)
    assert len(list(chosen_in(tmp_path / "shards")[0].digests())) == 60


def test_what_headers_say_is_heeded(server: GroqServer, captioner: Callable[..., GroqCaptioner], folder: Path) -> None:
    left = {"x-ratelimit-limit-tokens": "8000", "x-ratelimit-remaining-tokens": "100", "x-ratelimit-reset-tokens": "1m"}
    server.answer = lambda request, place: Reply(**{**vars(said(GOOD)), "headers": left})
    one = captioner()
    one.caption(folder / "0000.png")
    with pytest.raises(Later) as caught:
        one.caption(folder / "0001.png")
    assert (
        10 < (caught.value.seconds or 0) < 20 and len(server.requests) == 1
    )  # a quarter of 8000 is there after so long


def test_the_cost_is_told_before_anything_is_spent(
    server: GroqServer, cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASH_STUDIO_OFFLINE", "0")
    given = ("dataset", "caption", str(folder), "--captioner", "groq")
    code, out, _ = cli(*given, "--dry-run")
    assert code == 0 and "3 pictures to ask for" in out and "$0.01" in out and "limits that are set" in out
    code, out, err = cli(*given)
    assert (code, out) == (2, "") and "Nobody is here to agree" in err
    assert server.requests == []
    assert cli(*given, "--max-cost", "0")[0] == 1 and server.requests == []
    monkeypatch.delenv("GROQ_API_KEY")
    code, _, err = cli(*given, "--yes")
    assert code == 1 and "There is no key for Groq" in err
    monkeypatch.setenv("FLASH_STUDIO_OFFLINE", "1")
    assert "offline" in cli(*given, "--yes")[2]
