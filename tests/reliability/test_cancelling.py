"""Q3 and P11: a job that is stopped at any state leaves nothing half, and a clock that jumps changes nothing."""

import itertools
import random
import threading
import time
from collections.abc import Callable

import pytest
from PIL import Image

from studio.domain.events import Drawing, Event, ImageReady, Progress, Started
from studio.domain.request import GenerationRequest
from studio.job import Job
from studio.metadata import pixels_sha256
from studio.processes import is_dead, runner_id
from studio.services import Services
from tests.reliability.conftest import Score

SEED = 20261127
STEPS, PICTURES = 4, 2
LONGEST_S = 5.0
"""From the wish to the end of a job, on a machine that does something else besides; a step takes a thirtieth of it."""
REQUEST = GenerationRequest(prompt="a red circle", seed=11, num_inference_steps=STEPS, num_images=PICTURES)
NEXT = GenerationRequest(prompt="a blue star", seed=5, num_inference_steps=2)
LONGER = NEXT.model_copy(update={"num_inference_steps": 40})

Reached = Callable[[Event], bool]
STATES: dict[str, Reached | None] = {
    "queued": None,
    "started": lambda event: isinstance(event, Started),
    "drawing": lambda event: isinstance(event, Drawing),
    **{f"step {k}": (lambda event, k=k: isinstance(event, Progress) and event.step >= k) for k in range(1, STEPS + 1)},
    "saved": lambda event: isinstance(event, ImageReady),
}


def hashes(services: Services, job: Job) -> dict[int, str]:
    """The pixels of a job's pictures as its files have them, by their index."""
    found: dict[int, str] = {}
    for made in services.gallery.of_job(job.id):
        with Image.open(services.gallery.path(made)) as image:
            found[made.image_index] = pixels_sha256(image)
        assert found[made.image_index] == made.pixels_sha256
    return found


def cancel_at(job: Job, reached: Reached, pause_s: float) -> None:
    for event in job.events(timeout=LONGEST_S * 4):
        if reached(event):
            time.sleep(pause_s)
            job.cancel()
            return


@pytest.mark.slow
@pytest.mark.parametrize(
    "times",
    [1, pytest.param(25, marks=pytest.mark.full), pytest.param(100, marks=pytest.mark.long)],
    ids=["quick", "full", "long"],
)
def test_cancelled_at_any_state_nothing_is_half_and_the_next_job_is_as_ever(
    services: Services, score: Score, times: int
) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    whole, after = (services.generation.submit(request, again=True) for request in (REQUEST, NEXT))
    after.wait(60)
    undisturbed, expected_next = hashes(services, whole), hashes(services, after)
    num_pngs = PICTURES + 1
    for _, (name, reached) in itertools.product(range(times), STATES.items()):
        job = services.generation.submit(REQUEST, again=True)
        following = services.generation.submit(NEXT, again=True)
        if reached is None:
            job.cancel()
        else:
            cancel_at(job, reached, rng.choice((0, 0, rng.uniform(0, 0.05))))
        asked = time.monotonic()
        job.wait(60)
        assert time.monotonic() - asked < LONGEST_S, name
        kept = hashes(services, job)
        assert kept == {index: undisturbed[index] for index in kept}, name
        assert services.runner.row(job.id).state == ("done" if len(kept) == PICTURES else "cancelled"), name
        following.wait(60)
        assert hashes(services, following) == expected_next, name
        num_pngs += len(kept) + 1
    files = [path for path in services.settings.images_dir.rglob("*") if path.is_file()]
    assert len(files) == num_pngs == services.gallery.count()
    score(faults=times * len(STATES), survived=times * len(STATES))


def test_a_clock_that_jumps_changes_no_order_and_tells_no_time_below_nothing(
    services: Services, monkeypatch: pytest.MonkeyPatch, score: Score
) -> None:
    """A day forward, two back, and an hour, as at the end of summer, in the middle of drawing."""
    real, real_ns, offset_s = time.time, time.time_ns, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + offset_s)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(offset_s * 1e9))
    jobs: list[Job] = []
    told: list[Event] = []
    for jump_s in (86_400.0, -172_800.0, 3_600.0, -3_600.0):
        job = services.generation.submit(LONGER, again=True)
        jobs.append(job)
        for event in job.events():
            told.append(event)
            if isinstance(event, Progress) and event.step == 1:
                offset_s += jump_s
        assert services.runner.row(job.id).state == "done"
        assert (services.ledger.wait_s("studio", 1) or 0) >= 0
    estimates = [event.eta_s for event in told if isinstance(event, Progress) and event.eta_s is not None]
    assert estimates and min(estimates) >= 0
    pictures = [made.id for job in jobs for made in services.gallery.of_job(job.id)]
    assert [job.id for job in jobs] == sorted({job.id for job in jobs})
    assert pictures == sorted(set(pictures))
    assert [made.id for made in services.gallery.find()] == pictures[::-1]
    assert all(min(made.seconds.values()) >= 0 for made in services.gallery.find())
    score(faults=4, survived=4)


def test_a_process_lives_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch, score: Score) -> None:
    """The time of day at which a process began changes with the clock; its name must not."""
    psutil = pytest.importorskip("psutil")
    named = runner_id()
    boot_time = psutil._psplatform.boot_time
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: boot_time() + 86_400)
    assert runner_id() == named and not is_dead(named)
    score(faults=1, survived=1)


def test_ids_of_one_millisecond_are_unique_and_sorted(services: Services, score: Score) -> None:
    found: list[str] = []
    lock = threading.Lock()

    def take() -> None:
        mine = [services.ledger.new_id() for _ in range(500)]
        with lock:
            found.extend(mine)
        assert mine == sorted(mine)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 4_000
    score(inputs=4_000)
