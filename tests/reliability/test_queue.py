"""Q1, Q2, Q8 and X1: the line holds each job once, in turn, whatever happens to those who serve it."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from studio.domain.errors import InvalidRequest, QueueFull
from studio.job import Job
from studio.job_ledger import MAX_STARTS
from studio.jobs import JobRunner
from studio.ledger import Ledger
from studio.processes import runner_id
from studio.tables import JobRow, Once
from tests.reliability.conftest import Score
from tests.studio.records import record

SEED = 20261127
PATIENCE_S = 120.0
full = pytest.mark.full


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'studio.db'}")
    yield ledger
    ledger.close()


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=full)], ids=["quick", "full"])
def test_each_of_many_jobs_is_claimed_once_by_64_threads(ledger: Ledger, score: Score, count: int) -> None:
    jobs = [ledger.add_job("work", {}, f"{n % 7}", "studio").id for n in range(count)]
    ready = threading.Barrier(64)

    def take_all(name: int) -> list[str]:
        ready.wait()
        taken: list[str] = []
        while row := ledger.claim("studio", f"{name}"):
            taken.append(row.id)
        return taken

    with ThreadPoolExecutor(64) as pool:
        taken = [job_id for of_one in pool.map(take_all, range(64)) for job_id in of_one]
    score(inputs=count, lost=len(set(jobs) - set(taken)))
    assert sorted(taken) == sorted(jobs)


@pytest.mark.parametrize(("flooded", "rounds"), [(60, 2), pytest.param(500, 10, marks=full)], ids=["quick", "full"])
def test_who_floods_the_line_makes_others_wait_one_round_at_most(
    ledger: Ledger, score: Score, flooded: int, rounds: int
) -> None:
    """8 people, of whom one asks for hundreds: the others' next job is at most 8 jobs away, at any time."""
    runner, served = JobRunner(ledger, max_queued=1000), list[str]()

    def work(job: Job) -> dict[str, Any]:
        served.append(job.id)
        return {}

    runner.register("work", work)
    flood = [runner.submit("work", {}, "flood") for _ in range(flooded)]
    runner.start()
    waits: list[int] = []
    for round_ in range(rounds):
        asked = [runner.submit("work", {}, f"{visitor}") for visitor in range(7)]
        begun = len(served)
        for job in asked:
            job.wait(PATIENCE_S)
            waits.append(served.index(job.id) - begun)
        assert max(waits) <= 8, f"round {round_}"
    for job in flood:
        job.cancel()
    runner.stop(PATIENCE_S)
    score(inputs=flooded + 7 * rounds)


@pytest.mark.parametrize(
    "count",
    [300, pytest.param(2_000, marks=full), pytest.param(10_000, marks=pytest.mark.long)],
    ids=["quick", "full", "long"],
)
def test_a_long_line_takes_no_longer_to_join_and_a_full_one_says_so(ledger: Ledger, score: Score, count: int) -> None:
    runner = JobRunner(ledger, max_queued=count)
    seconds: list[float] = []
    for n in range(count):
        began = time.perf_counter()
        job = runner.submit("work", {}, f"{n % 50}")
        seconds.append(time.perf_counter() - began)
    part = count // 4
    assert sorted(seconds[-part:])[part // 2] < 5 * sorted(seconds[:part])[part // 2] + 0.01
    with pytest.raises(QueueFull, match=f"{count} jobs are waiting"):
        runner.submit("work", {})
    began = time.perf_counter()
    assert runner.jobs_ahead(job) <= count and len(ledger.active_jobs("3")) == count / 50
    assert time.perf_counter() - began < 1
    assert ledger.waiting("studio") == count
    score(inputs=count)


class Model:
    """What the ledger has to be like after any steps: our own account of every job, beside the ledger's."""

    def __init__(self, ledger: Ledger, rng: random.Random) -> None:
        self.ledger, self.rng = ledger, rng
        self.jobs: dict[str, dict[str, Any]] = {}
        self.once: dict[tuple[str, str], tuple[str, str]] = {}
        self.counted: Counter[str] = Counter()
        self._pictures = 0
        self._host = runner_id().rsplit(":", 1)[0]

    def step(self) -> None:
        names = ("add", "add", "add_once", "claim", "claim", "finish", "release", "cancel", "crash", "picture")
        name = self.rng.choice(names)
        getattr(self, name)()
        self.counted[name] += 1

    def check(self) -> None:
        """Every job is what it was told to become, and nothing else is there."""
        for job_id, expected in self.jobs.items():
            self.check_job(self.ledger.job(job_id), expected)
        states = Counter(expected["state"] for expected in self.jobs.values())
        counted: Counter[str] = Counter()
        for (_, state), count in self.ledger.job_counts().items():
            counted[state] += count
        assert counted == states
        assert self.ledger.waiting("studio") == states["queued"]
        assert len(self.ledger.active_jobs(None)) == states["queued"] + states["running"]

    def check_job(self, row: JobRow, expected: dict[str, Any]) -> None:
        told = {name: getattr(row, name) for name in ("state", "visitor", "runner_id")}
        assert told == {name: expected[name] for name in told}, row.id
        assert (row.ended_at is not None) == row.is_over == (expected["state"] not in ("queued", "running"))

    def ids(self, *states: str) -> list[str]:
        return [job_id for job_id, job in self.jobs.items() if not states or job["state"] in states]

    def any_of(self, *states: str) -> str | None:
        found = self.ids(*states)
        return self.rng.choice(found) if found else None

    def add(self) -> None:
        row = self.ledger.add_job("work", {}, f"{self.rng.randrange(4)}", "studio")
        self._put(row)

    def add_once(self) -> None:
        visitor, key, sha256 = f"{self.rng.randrange(4)}", f"{self.rng.randrange(30)}", f"{self.rng.randrange(2)}"
        earlier = self.once.get((visitor, key))
        if earlier and earlier[1] != sha256:
            with pytest.raises(InvalidRequest):
                self.ledger.add_job("work", {}, visitor, "studio", once=Once(key=key, sha256=sha256))
            return
        row = self.ledger.add_job("work", {}, visitor, "studio", once=Once(key=key, sha256=sha256))
        if earlier:
            assert row.id == earlier[0]
        else:
            self.once[visitor, key] = row.id, sha256
            self._put(row)

    def _put(self, row: JobRow) -> None:
        assert row.id not in self.jobs and row.id > max(self.jobs, default="")
        self.jobs[row.id] = {
            "state": "queued", "visitor": row.visitor, "runner_id": "", "is_cancelled": False, "starts": 0,
        }  # fmt: skip

    def claim(self) -> None:
        runner = self.rng.choice((runner_id(), f"{self._host}:{self.rng.randrange(1, 9)}.0"))
        row, waiting = self.ledger.claim("studio", runner), self.ids("queued")
        assert (row is None) == (not waiting)
        if row is not None:
            assert row.id in waiting
            self.jobs[row.id]["starts"] += 1
            self.jobs[row.id] |= {"state": "running", "runner_id": runner}

    def finish(self) -> None:
        job_id, state = self.any_of(), self.rng.choice(("done", "failed", "cancelled"))
        if job_id is None or self.jobs[job_id]["state"] == "queued":
            return
        if self.jobs[job_id]["state"] == "running":
            self.jobs[job_id]["state"] = state
        self.check_job(self.ledger.finish_job(job_id, state), self.jobs[job_id])

    def release(self) -> None:
        job_id = self.any_of()
        if job_id is None:
            return
        if self.jobs[job_id]["state"] == "running":
            self.jobs[job_id]["starts"] -= 1
            self.jobs[job_id] |= {"state": "queued", "runner_id": ""}
        self.ledger.release_job(job_id)

    def cancel(self) -> None:
        job_id = self.any_of()
        if job_id is None:
            return
        job = self.jobs[job_id]
        assert self.ledger.request_cancel(job_id) == (job["state"] in ("queued", "running"))
        job["is_cancelled"] |= job["state"] == "running"
        job["state"] = "cancelled" if job["state"] == "queued" else job["state"]
        assert self.ledger.is_cancel_requested(job_id) or job["state"] != "running"

    def crash(self) -> None:
        """Every runner that is not this process is gone; the next one puts their jobs back."""
        expected: list[str] = []
        for job_id in self.ids("running"):
            job = self.jobs[job_id]
            if job["runner_id"] == runner_id():
                continue
            if job["is_cancelled"]:
                job["state"] = "cancelled"
            elif job["starts"] >= MAX_STARTS:
                job["state"] = "failed"
            else:
                job |= {"state": "queued", "runner_id": ""}
                expected.append(job_id)
        assert sorted(self.ledger.requeue_orphans("studio")) == sorted(expected)
        assert self.ledger.requeue_orphans("studio") == []

    def picture(self) -> None:
        if job_id := self.any_of("running"):
            self._pictures += 1
            self.ledger.add_image(record(f"{self._pictures}", job_id=job_id, image_index=self._pictures))
            self.jobs[job_id]["starts"] = 0


@pytest.mark.parametrize("steps", [600, pytest.param(12_000, marks=full)], ids=["quick", "full"])
def test_any_steps_keep_the_line_true(tmp_path: Path, score: Score, steps: int) -> None:
    url = f"sqlite:///{tmp_path / 'studio.db'}"
    model = Model(Ledger(url), random.Random(SEED))
    print(f"seed {SEED}")
    for n in range(steps):
        model.step()
        if n % (steps // 30) == 0:
            model.check()
            model.ledger.close()
            model.ledger = Ledger(url)
    model.check()
    model.ledger.close()
    score(inputs=steps, faults=model.counted["crash"], survived=model.counted["crash"])
    assert set(model.counted) == {
        "add", "add_once", "claim", "finish", "release", "cancel", "crash", "picture",
    } and model.counted["crash"] > steps / 20  # fmt: skip
