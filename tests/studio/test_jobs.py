import gc
import itertools
import logging
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

import pytest

from studio.domain.errors import (
    InvalidRequest,
    JobCancelled,
    NotFound,
    QueueFull,
    RateLimited,
    StorageFailed,
    StudioError,
)
from studio.domain.events import (
    TERMINAL,
    Cancelled,
    Event,
    Failed,
    Finished,
    ImageReady,
    Progress,
    Queued,
    Started,
)
from studio.job import Job
from studio.jobs import JobRunner
from studio.ledger import Ledger
from studio.limits import Limits
from studio.settings import PROJECT_ROOT
from studio.tables import Once
from tests.studio.records import record

LONG = 20.0
"""Seconds after which a test gives up; nothing waits this long when it works."""

RUN_FOR_EVER = """
import sys, time
from studio.jobs import JobRunner
from studio.ledger import Ledger
from tests.studio.records import record
ledger = Ledger(sys.argv[1])
def work(job):
    ledger.add_image(record("first", job_id=job.id))
    print("running", flush=True)
    time.sleep(60)
runner = JobRunner(ledger)
runner.register("work", work)
runner.start()
time.sleep(60)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studio.db'}"


@pytest.fixture
def ledger(url: str) -> Ledger:
    return Ledger(url)


@pytest.fixture
def runner(ledger: Ledger) -> Iterator[JobRunner]:
    runner = JobRunner(ledger)
    yield runner
    runner.stop(LONG)


class Gate:
    """A handler that works until the test opens it, and can be cancelled at any time."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, job: Job) -> dict[str, Any]:
        self.entered.set()
        while not self.open.wait(0.01):
            if job.cancelled():
                raise JobCancelled
        return {"job": job.id}


def progress(job: Job, step: int) -> None:
    job.emit(Progress, step=step, total=99, image_index=0, num_images=1, eta_s=None, phase="denoise")


def kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events]


def run(runner: JobRunner, handler: Callable[[Job], Any]) -> Job:
    runner.register("work", handler)
    job = runner.submit("work", {})
    runner.start()
    job.wait(LONG)
    return job


def test_a_job_tells_its_story(runner: JobRunner, ledger: Ledger) -> None:
    def draw(job: Job) -> dict[str, Any]:
        progress(job, 1)
        job.emit(ImageReady, image_id="a", image_index=0)
        return {"payload": job.payload, "pair": (1, 2)}

    runner.register("draw", draw)
    job = runner.submit("draw", {"seed": 7}, "me")
    runner.start()
    events = list(job.events(timeout=LONG))
    assert kinds(events) == [Queued, Started, Progress, ImageReady, Finished]
    assert [event.index for event in events] == [0, 1, 2, 3, 4]
    assert {event.job_id for event in events} == {job.id}
    assert job.result() == {"payload": {"seed": 7}, "pair": [1, 2]}
    assert ledger.job(job.id).state == "done"


def test_jobs_run_in_turn_and_know_their_place(runner: JobRunner) -> None:
    gate = Gate()
    order: list[str] = []
    runner.register("gate", gate)
    runner.register("note", lambda job: order.append(job.id) or {})
    first = runner.submit("gate", {})
    others = [runner.submit("note", {}, "me") for _ in range(3)]
    runner.start()
    assert gate.entered.wait(LONG)
    assert [runner.jobs_ahead(job) for job in others] == [1, 2, 3]
    assert [job.id for job in runner.active("me")] == [job.id for job in others]
    gate.open.set()
    for job in (first, *others):
        job.wait(LONG)
    assert order == [job.id for job in others]
    assert runner.active("me") == []


def test_a_full_queue_says_how_many_wait(ledger: Ledger) -> None:
    runner = JobRunner(ledger, max_queued=2)
    runner.submit("work", {})
    waiting = runner.submit("work", {})
    with pytest.raises(QueueFull, match="2 jobs are waiting"):
        runner.submit("work", {})
    waiting.cancel()
    runner.submit("work", {})


def test_nobody_fills_the_line_alone(ledger: Ledger) -> None:
    runner = JobRunner(ledger, max_queued=5, limits=Limits(waiting=2))
    for _ in range(2):
        runner.submit("work", {}, "a")
    with pytest.raises(RateLimited, match="2 of your jobs are waiting") as refused:
        runner.submit("work", {}, "a")
    assert refused.value.retry_after_s >= 1
    runner.submit("work", {}, "b")


def test_nobody_asks_all_the_time(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, now = JobRunner(ledger, limits=Limits(jobs_per_minute=3)), 1000.0
    monkeypatch.setattr("studio.job_ledger.time.time", lambda: now)
    for _ in range(3):
        runner.submit("work", {}, "a")
        now += 5
    with pytest.raises(RateLimited, match="3 jobs within a minute") as refused:
        runner.submit("work", {}, "a")
    assert refused.value.retry_after_s == 45
    runner.submit("work", {}, "b")
    now += 46
    runner.submit("work", {}, "a")
    with pytest.raises(RateLimited):
        runner.submit("work", {}, "a")


def test_nobody_has_more_pictures_made_than_their_share(ledger: Ledger) -> None:
    runner = JobRunner(ledger, limits=Limits(pictures_per_day=2))
    for number, age in enumerate((90_000, 80_000, 10)):
        made = record(f"{number}", job_id=f"{number}", visitor="a", created_at=time.time() - age)
        ledger.add_image(made)
    with pytest.raises(RateLimited, match="2 pictures were made for you") as refused:
        runner.submit("work", {}, "a")
    assert 6000 < refused.value.retry_after_s <= 6400
    runner.submit("work", {}, "b")


def places(job: Job) -> list[tuple[int, float | None]]:
    return [(event.ahead, event.wait_s) for event in job.present() if isinstance(event, Queued)]


def test_a_job_that_waits_tells_its_place_and_how_long_it_takes_until_it_begins(ledger: Ledger) -> None:
    runner = JobRunner(ledger)
    first, second = runner.submit("work", {}), runner.submit("work", {})
    assert places(first) == [(0, 0.0)] and places(second) == [(1, None)]  # nobody knows yet how long they take
    runner.register("work", lambda job: {})
    runner.start()
    second.result(LONG)
    runner.stop(LONG)

    usual = ledger.usual_job_s("studio")
    waiting = [runner.submit("work", {}) for _ in range(3)]
    assert usual is not None
    assert [places(job) for job in waiting] == [[(0, 0.0)], [(1, usual)], [(2, 2 * usual)]]


def test_who_waits_is_told_when_the_line_gets_shorter_and_not_that_it_is_as_long_as_before(ledger: Ledger) -> None:
    view = JobRunner(ledger)
    jobs = [view.submit("work", {}) for _ in range(3)]
    last = jobs[-1]
    last.refresh()
    (told,) = last.present()
    jobs[0].cancel()
    last.refresh()
    assert places(last) == [(1, None)]
    assert kinds(last.present(told.index)) == [Queued]  # whoever follows gets the new place alone
    last.emit(Started)
    jobs[1].cancel()
    last.refresh()
    assert kinds(last.present()) == [Queued, Started] and places(last) == [(1, None)]


def test_the_same_key_is_the_same_job(runner: JobRunner) -> None:
    once = Once(key="k", sha256="a")
    jobs = [runner.submit("work", {"n": n}, once=once) for n in range(2)]
    assert jobs[0].id == jobs[1].id and jobs[1].payload == {"n": 0}
    assert runner.submit("work", {}).id != jobs[0].id


def test_errors_for_people_are_passed_on(runner: JobRunner, ledger: Ledger) -> None:
    def fail(_job: Job) -> dict[str, Any]:
        raise InvalidRequest("Width is 3.", "Choose another.")

    job = run(runner, fail)
    end = job.wait()
    assert isinstance(end, Failed) and (end.message, end.hint) == ("Width is 3.", "Choose another.")
    assert (ledger.job(job.id).state, ledger.job(job.id).message) == ("failed", "Width is 3.")
    with pytest.raises(StudioError, match=r"Width is 3\. Choose another\."):
        job.result()


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (lambda _: 1 / 0, "Unexpected error"),
        (lambda _: sys.exit(3), "Unexpected error"),
        (lambda _: {"not json": object()}, "Unexpected error"),
        (lambda _: [0] * 10**18, "ran out of memory"),
    ],
)
def test_whatever_a_handler_does_the_worker_lives(
    runner: JobRunner, caplog: pytest.LogCaptureFixture, handler: Callable[[Job], Any], message: str
) -> None:
    job = run(runner, handler)
    end = job.wait()
    assert isinstance(end, Failed) and message in end.message and end.hint
    assert job.id in caplog.text
    if "id " in end.message:
        (logged,) = [line for line in caplog.records if end.message[-10:-2] in line.getMessage()]
        assert logged.exc_info is not None and "log" in end.hint
    runner.register("next", lambda _: {})
    assert runner.submit("next", {}).result(LONG) == {}


def test_a_kind_that_nobody_knows(runner: JobRunner) -> None:
    runner.start()
    end = runner.submit("juggle", {}).wait(LONG)
    assert isinstance(end, Failed) and "juggle" in end.message


def test_a_failed_job_frees_what_its_frames_held(runner: JobRunner, caplog: pytest.LogCaptureFixture) -> None:
    class Tensor:
        pass

    held: list[weakref.ref[Tensor]] = []

    def fail(_job: Job) -> dict[str, Any]:
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        try:
            raise ValueError("inner")
        except ValueError as error:
            raise RuntimeError(str(tensor)) from error

    run(runner, fail)
    gc.collect()
    assert held[0]() is None and "inner" in caplog.text


def test_cancel_of_a_waiting_job_is_at_once(runner: JobRunner, ledger: Ledger) -> None:
    job = runner.submit("work", {})
    assert job.cancel()
    assert kinds(list(job.events())) == [Queued, Cancelled]
    assert not job.cancel()
    with pytest.raises(JobCancelled):
        job.result()
    runner.register("work", lambda _: {})
    runner.start()
    runner.submit("work", {}).wait(LONG)
    assert ledger.job(job.id).state == "cancelled"


def test_cancel_of_a_running_job(runner: JobRunner, ledger: Ledger) -> None:
    gate = Gate()
    runner.register("work", gate)
    runner.start()
    job = runner.submit("work", {})
    assert gate.entered.wait(LONG)
    assert job.cancel()
    assert isinstance(job.wait(LONG), Cancelled)
    assert ledger.job(job.id).state == "cancelled"
    assert not job.cancel() and sum(isinstance(event, TERMINAL) for event in job.events()) == 1


def test_cancel_from_another_process(runner: JobRunner, url: str) -> None:
    gate = Gate()
    runner.register("work", gate)
    running, waiting = runner.submit("work", {}), runner.submit("work", {})
    runner.start()
    assert gate.entered.wait(LONG)
    elsewhere = JobRunner(Ledger(url), queue="cli")
    elsewhere._runner_id = "another-host:1:1.0"
    assert elsewhere.job(waiting.id).cancel() and elsewhere.job(running.id).cancel()
    assert isinstance(waiting.wait(LONG), Cancelled) and isinstance(running.wait(LONG), Cancelled)


def test_cancelling_at_random_instants_ends_every_job_once(runner: JobRunner, ledger: Ledger) -> None:
    def work(job: Job) -> dict[str, Any]:
        for step in range(5):
            progress(job, step)
            if job.cancelled():
                raise JobCancelled
        return {}

    runner.register("work", work)
    runner.start()
    jobs = [runner.submit("work", {}) for _ in range(40)]
    cancellers = [threading.Thread(target=job.cancel) for job in jobs]
    for thread in cancellers:
        thread.start()
    for thread in cancellers:
        thread.join()
    for job in jobs:
        end = job.wait(LONG)
        assert [event for event in job.events() if isinstance(event, TERMINAL)] == [end]
        assert ledger.job(job.id).state == ("done" if isinstance(end, Finished) else "cancelled")


def test_a_late_watcher_sees_the_newest_progress_only(runner: JobRunner) -> None:
    gate = Gate()

    def work(job: Job) -> dict[str, Any]:
        for step in range(5):
            progress(job, step)
        job.emit(ImageReady, image_id="a", image_index=0)
        progress(job, 5)
        return gate(job)

    runner.register("work", work)
    runner.start()
    job = runner.submit("work", {})
    assert gate.entered.wait(LONG)
    seen = list(job.events(timeout=0))
    assert kinds(seen) == [Queued, Started, ImageReady, Progress]
    assert [event.index for event in seen] == [0, 1, 7, 8]
    gate.open.set()
    again = runner.job(job.id)
    assert kinds(list(again.events(after=7, timeout=LONG))) == [Progress, Finished]
    assert kinds(list(again.events(after=8))) == [Finished]
    assert list(again.events(after=9)) == []
    assert kinds(list(again.events(after=1000)))[-1] is Finished  # counted before a restart


def test_many_watchers_see_the_same_rising_events(runner: JobRunner) -> None:
    def work(job: Job) -> dict[str, Any]:
        for step in range(200):
            progress(job, step)
            job.emit(ImageReady, image_id=f"{step}", image_index=step)
        return {}

    runner.register("work", work)
    job = runner.submit("work", {})
    seen: list[list[Event]] = [[] for _ in range(8)]
    threads = [threading.Thread(target=lambda into: into.extend(job.events(timeout=LONG)), args=(s,)) for s in seen]
    for thread in threads:
        thread.start()
    runner.start()
    for thread in threads:
        thread.join(LONG)
    for events in seen:
        indexes = [event.index for event in events]
        assert indexes == sorted(set(indexes))
        assert sum(isinstance(event, ImageReady) for event in events) == 200
        assert isinstance(events[-1], Finished)


def test_events_come_without_delay(runner: JobRunner) -> None:
    job = runner.submit("work", {})
    read = job.events(timeout=LONG)
    next(read)
    took: list[float] = []
    for step in range(20):
        threading.Timer(0.01, progress, (job, step)).start()
        started = time.monotonic()
        next(read)
        took.append(time.monotonic() - started)
    assert sorted(took)[10] < 0.5 and max(took) < LONG / 2


def test_previews_are_for_watchers(runner: JobRunner) -> None:
    job = runner.submit("work", {})
    assert not job.is_watched
    read = job.events()
    next(read)
    assert job.is_watched
    read.close()
    assert not job.is_watched
    read = job.events(previews=False)
    next(read)
    assert not job.is_watched


def test_waiting_has_an_end(runner: JobRunner) -> None:
    job = runner.submit("work", {})
    with pytest.raises(TimeoutError):
        job.wait(0.01)
    started = time.monotonic()
    assert kinds(list(job.events(timeout=0.05))) == [Queued]
    assert time.monotonic() - started < 1


def test_ended_jobs_are_told_from_the_ledger_after_a_restart(runner: JobRunner, ledger: Ledger, url: str) -> None:
    def draw(job: Job) -> dict[str, Any]:
        job.emit(ImageReady, image_id=ledger.add_image(record("a", job_id=job.id)).id, image_index=0)
        return {"n": 1}

    done = run(runner, draw)
    runner.stop(LONG)
    cancelled = runner.submit("work", {})
    cancelled.cancel()
    waiting = runner.submit("work", {})
    later = JobRunner(Ledger(url))
    assert kinds(list(later.job(done.id).events())) == [ImageReady, Finished]
    assert later.job(done.id).result() == {"n": 1}
    assert kinds(list(later.job(cancelled.id).events())) == [Cancelled]
    assert kinds(list(later.job(waiting.id).events(timeout=0))) == [Queued]
    assert later.job(waiting.id) is later.job(waiting.id)
    with pytest.raises(NotFound):
        later.job("nobody")


def test_stop_puts_the_job_back_and_start_takes_it_up(runner: JobRunner, ledger: Ledger) -> None:
    gate = Gate()
    runner.register("work", gate)
    runner.start()
    job, next_job = runner.submit("work", {}), runner.submit("work", {})
    assert gate.entered.wait(LONG)
    watched: list[Event] = []
    watcher = threading.Thread(target=lambda: watched.extend(job.events()))
    watcher.start()
    runner.stop(LONG)
    watcher.join(LONG)
    assert kinds(watched) == [Queued, Started]
    assert (ledger.job(job.id).state, ledger.jobs_ahead(next_job.id)) == ("queued", 1)
    gate.open.set()
    runner.start()
    assert isinstance(next_job.wait(LONG), Finished)
    assert kinds(list(job.events())) == [Queued, Started, Started, Finished]


def test_cancel_and_stop_at_once_is_cancelled(runner: JobRunner, ledger: Ledger) -> None:
    gate = Gate()
    runner.register("work", gate)
    runner.start()
    job = runner.submit("work", {})
    assert gate.entered.wait(LONG)
    ledger.request_cancel(job.id)
    runner.stop(LONG)
    assert ledger.job(job.id).state == "cancelled"


def test_a_job_of_a_killed_process_runs_again_and_knows_its_pictures(
    runner: JobRunner, ledger: Ledger, url: str
) -> None:
    job_id = runner.submit("work", {}).id
    command = [sys.executable, "-c", RUN_FOR_EVER, url]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "running\n"
        elsewhere = runner.job(job_id)
        assert [event.image_id for event in elsewhere.events(timeout=0) if isinstance(event, ImageReady)] == ["first"]
        child.kill()
        child.wait()
    fresh = JobRunner(Ledger(url))
    met: list[Event] = []
    fresh.register("work", lambda job: met.extend(job.events(timeout=0)) or {})
    fresh.start()
    assert isinstance(fresh.job(job_id).wait(LONG), Finished)
    assert kinds(met)[-2:] == [ImageReady, Started]
    fresh.stop(LONG)


def test_a_job_that_another_process_runs_is_followed_through_the_ledger(ledger: Ledger) -> None:
    row = ledger.add_job("work", {}, "local", "cli")
    ledger.claim("cli", "another-host:1:1.0")
    job = JobRunner(ledger).job(row.id)
    assert list(job.events(timeout=0)) == []
    ledger.add_image(record("a", job_id=row.id))
    ledger.finish_job(row.id, "failed", "No.", "Retry.")
    assert kinds(list(job.events(timeout=LONG))) == [ImageReady, Failed]


def test_the_end_is_told_even_when_it_cannot_be_stored(
    runner: JobRunner, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise StorageFailed("full")

    monkeypatch.setattr(ledger, "finish_job", fail)
    assert run(runner, lambda _: {"n": 1}).result() == {"n": 1}


def test_the_worker_outlives_a_ledger_that_fails(
    runner: JobRunner, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("studio.jobs._POLL_S", 0.01)
    claim, calls = ledger.claim, itertools.count()

    def sometimes(queue: str, runner_id: str) -> Any:
        if next(calls) < 2:
            raise StorageFailed("The disk is full.")
        return claim(queue, runner_id)

    monkeypatch.setattr(ledger, "claim", sometimes)
    with caplog.at_level(logging.ERROR):
        assert run(runner, lambda _: {}).result() == {}
    assert "disk is full" in caplog.text


def test_ended_jobs_do_not_pile_up_in_memory(runner: JobRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.jobs._KEPT", 3)
    runner.register("work", lambda _: {})
    runner.start()
    jobs = [runner.submit("work", {}) for _ in range(12)]
    for job in jobs:
        job.wait(LONG)
    runner.submit("work", {}).wait(LONG)
    assert len(runner._jobs) <= 5
    assert runner.job(jobs[0].id).result() == {}


def test_a_runner_starts_once(runner: JobRunner) -> None:
    runner.start()
    with pytest.raises(RuntimeError):
        runner.start()


ASKED_BY: ContextVar[str] = ContextVar("asked_by", default="nobody")


@pytest.mark.parametrize(("keeps", "expected"), [(True, ["one", "other"]), (False, ["nobody", "nobody"])])
def test_a_job_is_done_in_the_context_it_was_asked_for_in(ledger: Ledger, keeps: bool, expected: list[str]) -> None:
    seen: list[str] = []

    def handler(job: Job) -> dict[str, Any]:
        seen.append(ASKED_BY.get())
        return {}

    runner = JobRunner(ledger, keeps_contexts=keeps)
    runner.register("work", handler)
    jobs: list[Job] = []
    for name in ("one", "other"):
        context = copy_context()
        context.run(ASKED_BY.set, name)
        jobs.append(context.run(runner.submit, "work", {}))
    runner.start()
    try:
        assert all(job.wait(LONG) for job in jobs)
    finally:
        runner.stop(timeout=LONG)
    assert seen == expected and all(job.context is None for job in jobs)
