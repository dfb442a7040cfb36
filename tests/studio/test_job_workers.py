"""Several workers at one line: each job once, in turn, and what happens to one is nothing to the others. In both
databases, and with pictures that are really drawn."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.domain.errors import JobCancelled
from studio.domain.events import TERMINAL, Cancelled, Finished, Started
from studio.domain.request import GenerationRequest
from studio.engine_process import EngineProcess
from studio.gallery import opened
from studio.generation import EngineHolder, job_images
from studio.job import Job
from studio.jobs import JobRunner
from studio.ledger import Ledger
from studio.news import News
from studio.services import Services, open_services
from studio.settings import Settings

LONG = 60.0
"""Seconds after which a test gives up; nothing waits this long when it works."""


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Rooms:
    """A handler whose jobs work until the test lets them go, each by itself, and can be cancelled at any time."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.order: list[str] = []
        self.open: set[str] = set()
        self.is_all_open = False
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self, job: Job) -> dict[str, Any]:
        with self._lock:
            self.inside.append(job.id)
            self.order.append(job.id)
            self.most = max(self.most, len(self.inside))
        try:
            while not (self.is_all_open or job.id in self.open):
                time.sleep(0.005)
                if job.cancelled():
                    raise JobCancelled
            return {"job": job.id}
        finally:
            with self._lock:
                self.inside.remove(job.id)


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
def runner(ledger: Ledger, rooms: Rooms) -> Iterator[JobRunner]:
    runner = JobRunner(ledger, workers=2)
    runner.register("work", rooms)
    yield runner
    rooms.is_all_open = True
    runner.stop(LONG)


def test_two_jobs_run_at_once_and_no_more(runner: JobRunner, rooms: Rooms, ledger: Ledger) -> None:
    jobs = [runner.submit("work", {}) for _ in range(6)]
    assert not runner.is_working
    runner.start()
    until(lambda: len(rooms.inside) == 2)
    assert sorted(rooms.inside) == [job.id for job in jobs[:2]]
    assert runner.is_working and [runner.jobs_ahead(job) for job in jobs[2:]] == [2, 3, 4, 5]
    rooms.open.add(jobs[1].id)
    assert isinstance(jobs[1].wait(LONG), Finished)
    until(lambda: len(rooms.inside) == 2)
    assert sorted(rooms.inside) == [jobs[0].id, jobs[2].id]
    rooms.is_all_open = True
    assert [job.result(LONG) for job in jobs] == [{"job": job.id} for job in jobs]
    assert rooms.most == 2 and Counter(rooms.order) == dict.fromkeys([job.id for job in jobs], 1)
    assert ledger.job_counts() == {("work", "done"): 6}
    for job in jobs:
        assert [type(event) for event in job.events() if isinstance(event, (Started, *TERMINAL))] == [Started, Finished]


def test_visitors_are_served_in_turn_by_all_workers(runner: JobRunner, rooms: Rooms) -> None:
    flood = [runner.submit("work", {}, "flood") for _ in range(6)]
    others = [runner.submit("work", {}, visitor) for visitor in "ab"]
    runner.start()
    until(lambda: len(rooms.inside) == 2)
    rooms.open.add(flood[0].id)
    until(lambda: len(rooms.order) == 3)
    assert set(rooms.order) == {flood[0].id, *(job.id for job in others)}
    rooms.is_all_open = True
    for job in (*flood, *others):
        job.wait(LONG)


def test_one_of_two_that_run_is_cancelled_and_the_other_goes_on(runner: JobRunner, rooms: Rooms) -> None:
    first, second, third = (runner.submit("work", {}) for _ in range(3))
    runner.start()
    until(lambda: len(rooms.inside) == 2)
    assert first.cancel()
    assert isinstance(first.wait(LONG), Cancelled)
    until(lambda: third.id in rooms.inside)
    assert second.id in rooms.inside and not second.is_over
    rooms.is_all_open = True
    assert isinstance(second.wait(LONG), Finished) and isinstance(third.wait(LONG), Finished)


def test_a_stop_puts_both_back_and_a_start_takes_both_up(runner: JobRunner, rooms: Rooms, ledger: Ledger) -> None:
    jobs = [runner.submit("work", {}) for _ in range(3)]
    runner.start()
    until(lambda: len(rooms.inside) == 2)
    runner.stop(LONG)
    assert not runner.is_working and rooms.inside == []
    assert [(row.state, row.runner_id) for row in ledger.active_jobs(None)] == [("queued", "")] * 3
    assert [ledger.jobs_ahead(job.id) for job in jobs] == [0, 1, 2]
    runner.start()
    with pytest.raises(RuntimeError):
        runner.start()
    rooms.is_all_open = True
    assert all(isinstance(job.wait(LONG), Finished) for job in jobs)


def test_a_stop_does_not_wait_longer_for_two_than_for_one(runner: JobRunner, rooms: Rooms) -> None:
    runner.register("deaf", lambda job: until(lambda: rooms.is_all_open) or {})
    jobs = [runner.submit("deaf", {}) for _ in range(2)]
    runner.start()
    until(lambda: all(any(isinstance(event, Started) for event in job.present()) for job in jobs))
    began = time.monotonic()
    runner.stop(2)
    assert 1.9 < time.monotonic() - began < 3.8 and runner.is_working
    with pytest.raises(RuntimeError):
        runner.start()
    rooms.is_all_open = True
    until(lambda: not runner.is_working)


def test_how_long_it_takes_until_a_job_begins(runner: JobRunner, rooms: Rooms, ledger: Ledger) -> None:
    runner.start()
    done = runner.submit("work", {})
    rooms.open.add(done.id)
    done.wait(LONG)
    jobs = [runner.submit("work", {}) for _ in range(5)]
    until(lambda: len(rooms.inside) == 2)
    usual = ledger.usual_job_s("studio")
    assert usual is not None
    waits = [ledger.wait_s("studio", runner.jobs_ahead(job)) for job in jobs]
    assert waits == [0, 0, usual, 1.5 * usual, 2 * usual]


def test_what_one_takes_along_the_other_does_not_take(runner: JobRunner, rooms: Rooms) -> None:
    def wide(job: Job) -> dict[str, Any]:
        with runner.taking_along(job, lambda row: True, 2) as riders:
            until(lambda: rooms.is_all_open)
            for rider in riders[:1]:
                runner.finish(rider, {"with": job.id})
        return {"took": [rider.id for rider in riders]}

    runner.register("wide", wide)
    jobs = [runner.submit("wide", {}) for _ in range(7)]
    runner.start()
    until(lambda: sum(any(isinstance(event, Started) for event in job.present()) for job in jobs) == 6)
    rooms.is_all_open = True
    summaries = [job.result(LONG) for job in jobs]
    finished = [job_id for summary in summaries for job_id in summary.get("took", ())[:1]]
    assert len(finished) == len(set(finished))
    assert sum("with" in summary for summary in summaries) == len(finished)


def test_nobody_sleeps_through_what_was_put_in_line(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.jobs._POLL_S", LONG)
    runner = JobRunner(ledger, max_queued=1000, workers=4)
    runner.register("work", lambda job: {})
    runner.start()
    began = time.monotonic()
    for _ in range(60):
        pair = [runner.submit("work", {}) for _ in range(2)]
        for job in pair:
            job.wait(LONG)
    assert time.monotonic() - began < LONG / 2
    runner.stop(LONG)


def test_news_that_came_before_the_waiting_ends_it_at_once() -> None:
    news = News()
    seen = news.number
    news.tell()
    began = time.monotonic()
    news.wait(seen, LONG)
    assert time.monotonic() - began < LONG / 2
    began = time.monotonic()
    news.wait(news.number, 0.05)
    assert time.monotonic() - began >= 0.05


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine in a process of its own, which draws one picture after the other."""
    engine = EngineProcess(Settings(data_dir=tmp_path_factory.mktemp("apart"), offline=True))
    yield engine
    engine.close()


@pytest.fixture
def drawing(tmp_path: Path, apart: EngineProcess) -> Iterator[Services]:
    """The studio with two workers."""
    settings = Settings(data_dir=tmp_path / "drawing", offline=True, ray_workers=2)
    with open_services(settings, engine=EngineHolder(lambda: apart)) as opened:
        yield opened


def test_what_two_workers_draw_is_what_one_draws(drawing: Services, services: Services) -> None:
    asked = [GenerationRequest(prompt="a red circle", seed=seed, num_inference_steps=4) for seed in range(4)]
    jobs = [drawing.generation.submit(request, f"{request.seed % 2}") for request in asked]
    for request, job in zip(asked, jobs, strict=True):
        assert isinstance(job.wait(LONG), Finished)
        (made,) = job_images(job, drawing.gallery)
        (alone,) = services.generate(**request.model_dump(include={"prompt", "seed", "num_inference_steps"}))
        assert made.pixels_sha256 == alone.pixels_sha256
        assert opened(drawing.gallery.path(made)).size == (128, 128)
    assert drawing.gallery.count() == 4


def test_the_same_picture_for_the_same_visitor_is_not_drawn_twice_at_once(drawing: Services) -> None:
    request = GenerationRequest(prompt="a blue square", seed=5, num_inference_steps=12)
    drawing.generation.preload()
    mine = [drawing.generation.submit(request, "me") for _ in range(2)]
    other = drawing.generation.submit(request, "you")
    again = drawing.generation.submit(request, "me", again=True)
    for job in (*mine, other, again):
        assert isinstance(job.wait(LONG), Finished)
    (one,), (two,) = (job_images(job, drawing.gallery) for job in mine)
    assert one.id == two.id
    assert drawing.gallery.count() == 3


def test_who_waits_for_a_picture_of_another_job_can_be_stopped(drawing: Services) -> None:
    request = GenerationRequest(prompt="a blue square", seed=5, num_inference_steps=100)
    first, second = (drawing.generation.submit(request, "me") for _ in range(2))
    until(lambda: any(isinstance(event, Started) for event in second.present()))
    second.cancel()
    assert isinstance(second.wait(LONG), Cancelled)
    assert isinstance(first.wait(LONG), Finished) and drawing.gallery.count() == 1
