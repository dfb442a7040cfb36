"""Engines on two actors of Ray on this machine: the same pictures, two at once, nothing lost when one is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from engines.base import Engine, Picture, Step
from studio.domain.catalogue import Catalogue
from studio.domain.errors import GenerationFailed, InvalidRequest, JobCancelled, NotFound
from studio.domain.events import Cancelled, Finished, Progress, Started
from studio.domain.request import GenerationRequest, ResolvedRequest
from studio.generation import EngineHolder, job_images
from studio.job import Job
from studio.processes import child_environment
from studio.ray_engines import RayEngines
from studio.scoring import POCKET_JUDGE
from studio.services import Services, open_services
from studio.settings import PROJECT_ROOT, Settings
from tests.running_app import running_app

PROMPTS = ("a red circle on a white background", "")
LONG = 120.0
"""Seconds after which a test gives up; nothing waits this long when it works."""

JOIN = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print("joined", ray.get(ray.put(7)), flush=True)
"""

pytestmark = pytest.mark.slow
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="an extra: pip install -r requirements-ray.txt")


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def actors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayEngines]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("actors") / "data", offline=True, ray_workers=2)
    engines = RayEngines(settings)
    yield engines
    engines.close()


@pytest.fixture
def both(actors: RayEngines) -> RayEngines:
    """Two actors that are there and do nothing."""
    until(lambda: [actor.is_busy for actor in actors.actors] == [False, False])
    return actors


@pytest.fixture
def studio(tmp_path: Path, both: RayEngines) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path / "studio", offline=True, ray_workers=2)
    with open_services(settings, engine=EngineHolder(lambda: both)) as opened:
        yield opened


@pytest.fixture
def recipe(catalogue: Catalogue) -> ResolvedRequest:
    return catalogue.resolve(GenerationRequest(prompt=PROMPTS[0], seed=3, num_inference_steps=6)).single(0)


def nobody(step: Step) -> None:
    """Looks at no step."""


def draw(engine: Engine, recipe: ResolvedRequest, on_step: Callable[[Step], None] = nobody) -> Picture:
    return engine.generate(recipe, PROMPTS, cancelled=lambda: False, on_step=on_step)


def busy(engines: RayEngines) -> list[int]:
    """The processes that draw."""
    return [actor.pid for actor in engines.actors if actor.is_busy]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def ask(studio: Services, seed: int, visitor: str = "me", steps: int = 25) -> Job:
    request = GenerationRequest(prompt=PROMPTS[0], seed=seed, num_inference_steps=steps)
    return studio.generation.submit(request, visitor)


def step_of(job: Job) -> int:
    return max((event.step for event in job.present() if isinstance(event, Progress)), default=0)


def span(job: Job) -> tuple[float, float]:
    """When a job began and ended."""
    events = job.present()
    return next(e.time for e in events if isinstance(e, Started)), events[-1].time


@needs_ray
def test_an_actor_draws_what_the_engine_in_this_process_draws(
    both: RayEngines, engine: Engine, recipe: ResolvedRequest
) -> None:
    steps: dict[str, list[tuple[int, int, bytes]]] = {"there": [], "here": []}

    def watch(name: str) -> Callable[[Step], None]:
        return lambda step: steps[name].append((step.step, step.total, step.preview().tobytes()))

    there, here = draw(both, recipe, watch("there")), draw(engine, recipe, watch("here"))
    assert there.image.tobytes() == here.image.tobytes()
    assert {**there.environment, "threads": ""} == {**here.environment, "threads": ""}
    assert steps["there"] == steps["here"] and len(steps["here"]) == 6
    assert both.plan(recipe).needed_bytes == engine.plan(recipe).needed_bytes
    assert both.most_at_once(recipe) == 1 and both.free_bytes() > 0
    assert both.state().loaded == ("pocket-sd15",) and both.state().device == engine.state().device


@needs_ray
def test_an_actor_judges_as_the_engine_in_this_process_does(both: RayEngines, engine: Engine, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.radial_gradient("L").save(picture)
    assert both.embed(POCKET_JUDGE, picture) == engine.embed(POCKET_JUDGE, picture)
    texts = ("a star", "a heart")
    assert both.score_texts(POCKET_JUDGE, picture, texts) == engine.score_texts(POCKET_JUDGE, picture, texts)
    with pytest.raises(NotFound, match="picture that is to be judged is gone"):
        both.embed(POCKET_JUDGE, tmp_path / "nothing.png")


@needs_ray
def test_it_stops_within_a_step_and_errors_come_back_as_what_they_are(
    both: RayEngines, recipe: ResolvedRequest
) -> None:
    done: list[int] = []
    with pytest.raises(JobCancelled):
        both.generate(recipe, PROMPTS, cancelled=lambda: len(done) == 2, on_step=lambda step: done.append(step.step))
    assert done == [1, 2]

    def impatient(step: Step) -> None:
        raise InvalidRequest("no more", "said here", field="seed")

    with pytest.raises(InvalidRequest, match="no more said here"):
        draw(both, recipe, impatient)
    with pytest.raises(NotFound, match="gone"):
        draw(both, recipe.model_copy(update={"checkpoint": "gone"}))
    assert draw(both, recipe).image.size == (128, 128)


@needs_ray
def test_what_is_loaded_ahead_is_loaded_by_all_and_a_picture_goes_where_its_model_is(
    both: RayEngines, recipe: ResolvedRequest, catalogue: Catalogue
) -> None:
    both.preload(catalogue.checkpoint("pocket-sd15"))
    assert ["pocket-sd15" in actor.loaded for actor in both.actors] == [True, True]
    other = catalogue.resolve(GenerationRequest(prompt=PROMPTS[0], checkpoint="pocket-sd21", num_inference_steps=2))
    used: set[int] = set()
    for _ in range(3):
        draw(both, other.single(0), lambda step: used.update(busy(both)))
        draw(both, recipe)
    assert len(used) == 1
    assert sorted("pocket-sd21" in actor.loaded for actor in both.actors) == [False, True]


@needs_ray
def test_jobs_of_two_visitors_survive_an_actor_that_is_killed(
    studio: Services, both: RayEngines, services: Services
) -> None:
    jobs = [ask(studio, seed, visitor=f"visitor {seed % 2}") for seed in range(8)]
    until(lambda: len(busy(both)) == 2 and sum(step_of(job) >= 3 for job in jobs) >= 2)
    victim = busy(both)[0]
    kill(victim)
    for job in jobs:
        assert isinstance(job.wait(LONG), Finished)
    for seed, job in enumerate(jobs):
        (made,) = job_images(job, studio.gallery)
        (alone,) = services.generate(PROMPTS[0], seed=seed, num_inference_steps=25)
        assert made.pixels_sha256 == alone.pixels_sha256, seed
        assert studio.gallery.is_whole(made)
    assert studio.gallery.count() == 8
    assert studio.ledger.job_counts() == {("generate", "done"): 8} and studio.ledger.active_jobs(None) == []
    spans = sorted(span(job) for job in jobs)
    assert sum(later[0] < earlier[1] for earlier, later in pairwise(spans)) >= 4
    until(lambda: len(both.actors) == 2)
    assert victim not in [actor.pid for actor in both.actors]


@needs_ray
def test_two_pictures_are_drawn_by_two_processes_at_once(studio: Services, both: RayEngines) -> None:
    jobs = [ask(studio, seed, visitor=f"{seed}", steps=60) for seed in range(2)]
    until(lambda: all(1 <= step_of(job) < 50 for job in jobs) and len(set(busy(both))) == 2)
    assert all(isinstance(job.wait(LONG), Finished) for job in jobs)


@needs_ray
def test_one_of_two_that_are_drawn_is_cancelled_and_the_other_is_not(studio: Services, services: Services) -> None:
    stopped, kept = ask(studio, 1, "me", 150), ask(studio, 2, "you", 60)
    until(lambda: step_of(stopped) >= 2 and step_of(kept) >= 2)
    assert stopped.cancel()
    assert isinstance(stopped.wait(LONG), Cancelled) and step_of(stopped) < 140
    assert isinstance(kept.wait(LONG), Finished)
    (made,) = job_images(kept, studio.gallery)
    (alone,) = services.generate(PROMPTS[0], seed=2, num_inference_steps=60)
    assert made.pixels_sha256 == alone.pixels_sha256 and studio.gallery.count() == 1


@needs_ray
def test_previews_are_made_for_those_who_watch(studio: Services) -> None:
    told = [event for event in ask(studio, 4).events() if isinstance(event, Progress)]
    assert told and all(event.preview for event in told)
    unwatched = ask(studio, 5)
    told = [event for event in unwatched.events(previews=False) if isinstance(event, Progress)]
    assert told and not any(event.preview for event in told)


@needs_ray
def test_after_two_deaths_in_a_row_the_job_ends_with_a_sentence_and_the_next_one_is_drawn(
    both: RayEngines, engine: Engine, recipe: ResolvedRequest
) -> None:
    killed: set[int] = set()

    def kill_whoever_draws(step: Step) -> None:
        for pid in busy(both):
            killed.add(pid)
            kill(pid)

    with pytest.raises(GenerationFailed, match=r"lost.*twice in a row.*smaller picture"):
        draw(both, recipe, kill_whoever_draws)
    assert len(killed) == 2
    assert draw(both, recipe).image.tobytes() == draw(engine, recipe).image.tobytes()


@needs_ray
def test_an_actor_that_is_suspended_is_replaced_and_the_picture_is_the_same(
    both: RayEngines, engine: Engine, recipe: ResolvedRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.ray_lives._SILENT_LOOKS", 4)
    stopped: set[int] = set()

    def suspend(step: Step) -> None:
        if step.step == 3 and not stopped:
            stopped.update(busy(both))
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)

    assert draw(both, recipe, suspend).image.tobytes() == draw(engine, recipe).image.tobytes()
    until(lambda: len(both.actors) == 2)
    assert len(stopped) == 1 and not stopped & {actor.pid for actor in both.actors}


@needs_ray
def test_who_has_no_token_does_not_join(both: RayEngines, tmp_path: Path) -> None:
    address = both._ray.get_runtime_context().gcs_address
    processes = [
        process for process in psutil.Process().children(recursive=True) if "ray" in " ".join(process.cmdline())
    ]
    heard = [each.laddr.ip for process in processes for each in process.net_connections() if each.status == "LISTEN"]
    assert len(heard) >= 4 and {ip.removeprefix("::ffff:") for ip in heard} == {"127.0.0.1"}

    kept = {name: value for name, value in child_environment().items() if not name.startswith("RAY_AUTH")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"]}
    strangers = ({"RAY_AUTH_MODE": "disabled"}, {**token, "RAY_AUTH_TOKEN": "guessed" * 8})
    friend, *others = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN, address], env={**kept, "HOME": str(tmp_path), **changes},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for changes in (token, *strangers)
    ]  # fmt: skip
    assert "joined 7" in friend.communicate(timeout=LONG)[0]
    for other in others:
        out, err = other.communicate(timeout=LONG)
        assert other.returncode != 0 and "joined" not in out
        assert "unauthenticated" in err.lower() or "authentication" in err.lower()


@needs_ray
def test_what_cannot_be_had_is_said_at_once(tmp_path: Path) -> None:
    settings = {"DATA_DIR": str(tmp_path / "data"), "OFFLINE": "1", "RAY_WORKERS": "1", "DEVICE": "no-such-device"}
    environment = {**child_environment(), **{f"FLASH_STUDIO_{name}": value for name, value in settings.items()}}
    command = [sys.executable, "-m", "studio", "generate", PROMPTS[0], "--steps", "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONG, check=False)
    assert done.returncode == 1 and "no-such-device" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is here")
def test_without_ray_it_says_what_to_install(settings: Settings) -> None:
    with pytest.raises(NotFound, match=r"requirements-ray\.txt"):
        open_services(settings.model_copy(update={"ray_workers": 2}))


def test_no_secret_leaves_for_the_actors(settings: Settings) -> None:
    from studio.ray_engines import _for_actors

    private = settings.model_copy(
        update={"password": "hunter2hunter2", "database_url": "postgresql://me:pw@host/x", "c2pa_key": "key.pem"}
    )
    told = _for_actors(private)
    assert "hunter2" not in repr(vars(told)) and "pw@" not in repr(vars(told)) and told.c2pa_key == ""
    assert told.data_dir.is_absolute() and told.models_dir == private.models_dir.resolve()
    assert PROJECT_ROOT.is_absolute()


@needs_ray
def test_a_page_with_actors_ends_in_peace(tmp_path: Path) -> None:
    with running_app(tmp_path, FLASH_STUDIO_OFFLINE="1", FLASH_STUDIO_RAY_WORKERS="1", OMP_NUM_THREADS="1") as app:
        until(lambda: bool(httpx.get(f"{app.url}/health", timeout=60).json()["loaded"]))
