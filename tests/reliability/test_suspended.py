"""Q9: an engine that is suspended, again or for good, costs a picture its time and nobody anything else."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest

from engines.base import Engine
from studio.domain.events import Failed, Finished, Progress
from studio.domain.request import GenerationRequest
from studio.engine_process import EngineProcess
from studio.generation import EngineHolder
from studio.services import Services, open_services
from studio.settings import Settings
from tests.reliability.conftest import Score

pytestmark = [pytest.mark.slow, pytest.mark.full]

REQUEST = GenerationRequest(prompt="a red circle", seed=3, num_inference_steps=6)


@pytest.fixture
def apart(settings: Settings) -> Iterator[EngineProcess]:
    engine = EngineProcess(settings)
    yield engine
    with contextlib.suppress(ProcessLookupError):
        os.kill(engine.pid, signal.SIGCONT)
    engine.close()


@pytest.fixture
def studio(settings: Settings, apart: EngineProcess) -> Iterator[Services]:
    with open_services(settings, engine=EngineHolder(lambda: apart)) as opened:
        yield opened


def test_a_suspended_engine_is_replaced_and_the_picture_is_the_same(
    studio: Services, apart: EngineProcess, engine: Engine, score: Score
) -> None:
    first = apart.pid
    job = studio.generation.submit(REQUEST, again=True)
    for event in job.events():
        if isinstance(event, Progress) and event.step >= 3 and apart.pid == first:
            os.kill(first, signal.SIGSTOP)
            asked = time.monotonic()
            assert apart.state().loaded == ()  # who asks meanwhile is answered, if late
            assert time.monotonic() - asked < 60
    assert isinstance(job.wait(1), Finished) and apart.pid != first
    (made,) = studio.gallery.of_job(job.id)
    elsewhere = Settings(data_dir=studio.settings.data_dir / "elsewhere", offline=True)
    with open_services(elsewhere, engine=EngineHolder(lambda: engine)) as other:
        (undisturbed,) = other.generate(**REQUEST.model_dump(include={"prompt", "seed", "num_inference_steps"}))
    assert made.pixels_sha256 == undisturbed.pixels_sha256
    score(faults=1, survived=1)


def test_an_engine_that_is_suspended_twice_fails_the_job_and_draws_the_next(
    studio: Services, apart: EngineProcess, score: Score
) -> None:
    job = studio.generation.submit(REQUEST, again=True)
    stopped: set[int] = set()
    for event in job.events():
        if isinstance(event, Progress) and apart.pid not in stopped:
            stopped.add(apart.pid)
            os.kill(apart.pid, signal.SIGSTOP)
    end = job.wait(1)
    assert isinstance(end, Failed) and "signal 9, twice in a row" in end.message and len(stopped) == 2
    assert isinstance(studio.generation.submit(REQUEST, again=True).wait(120), Finished)
    score(faults=2, survived=2)


def test_one_that_goes_on_in_time_is_let_alone(studio: Services, apart: EngineProcess, score: Score) -> None:
    first = apart.pid
    job = studio.generation.submit(REQUEST, again=True)
    for event in job.events():
        if isinstance(event, Progress) and event.step == 3:
            os.kill(first, signal.SIGSTOP)
            time.sleep(2)
            os.kill(first, signal.SIGCONT)
    assert isinstance(job.wait(1), Finished) and apart.pid == first
    score(faults=1, survived=1)


def test_killed_again_and_again_the_next_picture_is_drawn(studio: Services, apart: EngineProcess, score: Score) -> None:
    for n in range(3):
        job = studio.generation.submit(REQUEST.model_copy(update={"seed": n}), again=True)
        pid = apart.pid
        for event in job.events():
            if isinstance(event, Progress) and event.step > n and apart.pid == pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert isinstance(job.wait(1), Finished)
    score(faults=3, survived=3)
