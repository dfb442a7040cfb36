"""The engine in a process of its own: the same pictures, and a page that outlives whatever happens in there."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from PIL import Image

from engines.base import Engine, Picture, Step
from studio.domain.catalogue import Catalogue
from studio.domain.errors import GenerationFailed, InvalidRequest, JobCancelled, NotFound
from studio.domain.events import Finished, Progress
from studio.domain.request import GenerationRequest, ResolvedRequest
from studio.engine_process import EngineProcess
from studio.generation import EngineHolder
from studio.scoring import POCKET_JUDGE
from studio.services import open_services
from studio.settings import PROJECT_ROOT, Settings

PROMPTS = ("a red circle on a white background", "")

FAILING = """
import os, sys
from pathlib import Path
import engines.stable_diffusion
from studio import engine_worker

mark, make = Path(sys.argv[1]), engines.stable_diffusion.StableDiffusionEngine._make

def failing(self, *args):
    if mark.exists():
        mark.unlink()
        raise RuntimeError("CUDA error: device-side assert triggered")
    return make(self, *args)

engines.stable_diffusion.StableDiffusionEngine._make = failing
engine_worker.main()
"""
"""An engine whose GPU fails for good at the next picture while a marked file is there."""

ORPHANED = """
import sys, time
from pathlib import Path
from studio.engine_process import EngineProcess
from studio.settings import Settings
print(EngineProcess(Settings(data_dir=Path(sys.argv[1]), offline=True)).pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("apart"), offline=True)


@pytest.fixture(scope="module")
def apart(settings: Settings) -> Iterator[EngineProcess]:
    engine = EngineProcess(settings)
    yield engine
    engine.close()


@pytest.fixture
def recipe(catalogue: Catalogue) -> ResolvedRequest:
    return catalogue.resolve(GenerationRequest(prompt=PROMPTS[0], seed=3, num_inference_steps=6)).single(0)


def nobody(step: Step) -> None:
    """Looks at no step."""


def draw(engine: Engine, recipe: ResolvedRequest, on_step: Callable[[Step], None] = nobody) -> Picture:
    return engine.generate(recipe, PROMPTS, cancelled=lambda: False, on_step=on_step)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_draws_what_the_engine_in_this_process_draws(
    apart: EngineProcess, engine: Engine, recipe: ResolvedRequest
) -> None:
    steps: dict[str, list[tuple[int, int, bytes]]] = {"apart": [], "here": []}

    def watch(name: str) -> Callable[[Step], None]:
        return lambda step: steps[name].append((step.step, step.total, step.preview().tobytes()))

    there, here = draw(apart, recipe, watch("apart")), draw(engine, recipe, watch("here"))
    assert there.image.tobytes() == here.image.tobytes()
    assert there.environment == here.environment
    assert steps["apart"] == steps["here"] and len(steps["here"]) == 6
    assert apart.plan(recipe).needed_bytes == engine.plan(recipe).needed_bytes
    assert apart.state().loaded == ("pocket-sd15",)


def test_it_judges_as_the_engine_in_this_process_does(apart: EngineProcess, engine: Engine, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.radial_gradient("L").save(picture)
    assert apart.embed(POCKET_JUDGE, picture) == engine.embed(POCKET_JUDGE, picture)
    assert apart.score(POCKET_JUDGE, picture, "a star") == engine.score(POCKET_JUDGE, picture, "a star")
    both = ("a star", "a heart")
    assert apart.score_texts(POCKET_JUDGE, picture, both) == engine.score_texts(POCKET_JUDGE, picture, both)
    with pytest.raises(NotFound, match="picture that is to be judged is gone"):
        apart.embed(POCKET_JUDGE, tmp_path / "nothing.png")


def test_it_stops_within_a_step_and_goes_on_with_the_next_job(apart: EngineProcess, recipe: ResolvedRequest) -> None:
    done: list[int] = []
    with pytest.raises(JobCancelled):
        apart.generate(recipe, PROMPTS, cancelled=lambda: len(done) == 2, on_step=lambda step: done.append(step.step))
    assert done == [1, 2]

    def impatient(step: Step) -> None:
        raise InvalidRequest("no more", "said here", field="seed")

    with pytest.raises(InvalidRequest, match="no more said here") as raised:
        draw(apart, recipe, impatient)
    assert raised.value.field == "seed"
    assert draw(apart, recipe).image.size == (128, 128)


def test_a_process_that_is_killed_in_the_middle_is_replaced_and_the_picture_drawn(
    apart: EngineProcess, engine: Engine, recipe: ResolvedRequest
) -> None:
    first, steps = apart.pid, list[int]()

    def kill_at_three(step: Step) -> None:
        steps.append(step.step)
        if steps == [1, 2, 3]:
            kill(first)

    assert draw(apart, recipe, kill_at_three).image.tobytes() == draw(engine, recipe).image.tobytes()
    assert steps == [1, 2, 3, 1, 2, 3, 4, 5, 6]
    assert apart.pid != first
    kill(apart.pid)
    assert apart.state().loaded == ()
    assert draw(apart, recipe).image.tobytes() == draw(engine, recipe).image.tobytes()


def test_after_two_deaths_in_a_row_the_job_ends_with_a_sentence_and_the_next_one_is_drawn(
    apart: EngineProcess, recipe: ResolvedRequest
) -> None:
    with pytest.raises(GenerationFailed, match=r"signal 9, twice in a row.*smaller picture"):
        draw(apart, recipe, lambda step: kill(apart.pid))
    assert draw(apart, recipe).image.size == (128, 128)


def test_a_lost_gpu_costs_the_process_and_one_more_try(
    settings: Settings, recipe: ResolvedRequest, tmp_path: Path, engine: Engine
) -> None:
    mark = tmp_path / "mark"
    failing = EngineProcess(settings, (sys.executable, "-c", FAILING, str(mark)))
    try:
        first = failing.pid
        expected = draw(failing, recipe).image.tobytes()
        mark.touch()
        assert draw(failing, recipe).image.tobytes() == expected == draw(engine, recipe).image.tobytes()
        assert failing.pid != first and not mark.exists()
    finally:
        failing.close()


def test_errors_come_back_as_what_they_are(apart: EngineProcess, recipe: ResolvedRequest, catalogue: Catalogue) -> None:
    with pytest.raises(NotFound, match="gone"):
        draw(apart, recipe.model_copy(update={"checkpoint": "gone"}))
    with pytest.raises(InvalidRequest, match="no-such-device"):
        EngineProcess(Settings(device="no-such-device", offline=True))
    with pytest.raises(GenerationFailed, match="status 3"):
        EngineProcess(Settings(offline=True), (sys.executable, "-c", "raise SystemExit(3)"))


def test_a_checkpoint_that_came_later_is_known(apart: EngineProcess, settings: Settings) -> None:
    with open_services(settings, engine=EngineHolder(lambda: apart)) as services:
        shutil.copytree(PROJECT_ROOT / "engines/pocket/weights/pocket-sd15", settings.models_dir / "mine")
        services.own_checkpoints.refresh()
        request = GenerationRequest(prompt=PROMPTS[0], checkpoint="mine", num_inference_steps=2)
        assert services.planning.plan(request).fits
        job = services.generation.submit(request)
        assert isinstance(job.wait(timeout=60), Finished)


def test_a_job_goes_on_for_those_who_watch_it(apart: EngineProcess, settings: Settings) -> None:
    with open_services(settings, engine=EngineHolder(lambda: apart)) as services:
        job = services.generation.submit(GenerationRequest(prompt=PROMPTS[0], num_inference_steps=60), again=True)
        told: list[Progress] = []
        for event in job.events():
            if isinstance(event, Progress):
                told.append(event)
                if len(told) == 5:
                    kill(apart.pid)
        assert isinstance(job.wait(timeout=1), Finished)
    steps = [progress.step for progress in told]
    assert steps.count(1) == 2 and steps[-1] > 50  # of quick steps not all are told
    assert told[-1].eta_s is not None and told[-1].eta_s < 1 and told[steps.index(1, 1)].eta_s is None
    assert all(progress.preview for progress in told[1:])


def test_nobody_computes_for_a_page_that_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ORPHANED, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as page:
        assert page.stdout
        child = psutil.Process(int(page.stdout.readline()))
        page.kill()
    child.wait(timeout=10)


def test_the_page_itself_needs_no_torch() -> None:
    program = "import app, sys; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=PROJECT_ROOT).returncode == 0


def test_one_that_is_closed_is_not_started_anew_by_who_waits(settings: Settings, recipe: ResolvedRequest) -> None:
    engine, endless = EngineProcess(settings), recipe.model_copy(update={"num_inference_steps": 150})
    child, begun = psutil.Process(engine.pid), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        drawing = threads.submit(draw, engine, endless, lambda step: begun.set())
        assert begun.wait(60)
        engine.close()
        with pytest.raises(JobCancelled):
            drawing.result(60)
    assert engine.pid == child.pid and not child.is_running()
