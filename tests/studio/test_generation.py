"""A request becomes pictures that do not depend on company, order, restarts or kills."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from engines.base import Engine
from studio.domain.errors import InvalidRequest
from studio.domain.events import Cancelled, Failed, Finished, ImageReady, Progress
from studio.domain.request import GenerationRequest
from studio.generation import EngineHolder, job_images
from studio.services import Services, open_services
from studio.settings import PROJECT_ROOT, Settings

QUICK = {"prompt": "a red circle on a white background", "num_inference_steps": 4}

LONG_JOB = """
import sys
from pathlib import Path
from studio.domain.request import GenerationRequest
from studio.services import open_services
from studio.settings import Settings
services = open_services(Settings(data_dir=Path(sys.argv[1]), offline=True))
request = GenerationRequest(prompt="a red circle", num_images=4, seed=11, num_inference_steps=40)
job = services.generation.submit(request)
print(job.id, flush=True)
for event in job.events():
    print(type(event).__name__, flush=True)
"""


def pixels(services: Services, job_id: str) -> list[bytes]:
    records = job_images(services.runner.job(job_id), services.gallery)
    return [Image.open(services.gallery.path(record)).convert("RGB").tobytes() for record in records]


def run(services: Services, **values: object) -> str:
    job = services.generation.submit(GenerationRequest(**{**QUICK, **values}))
    assert isinstance(job.wait(timeout=120), Finished)
    return job.id


def test_a_picture_is_the_same_alone_and_as_one_of_three(services: Services) -> None:
    together = pixels(services, run(services, seed=5, num_images=3))
    alone = [pixels(services, run(services, seed=5 + index))[0] for index in range(3)]
    assert together == alone


def test_a_picture_is_the_same_after_a_restart(services: Services, settings: Settings, engine: Engine) -> None:
    before = pixels(services, run(services, seed=9))
    services.close()
    with open_services(settings, engine=EngineHolder(lambda: engine)) as again:
        assert pixels(again, run(again, seed=9)) == before


def test_a_random_seed_is_recorded_and_makes_the_picture_again(services: Services) -> None:
    job_id = run(services, seed=-1)
    record = job_images(services.runner.job(job_id), services.gallery)[0]
    assert record.recipe.seed >= 0
    assert pixels(services, run(services, seed=record.recipe.seed)) == pixels(services, job_id)


def test_a_job_tells_its_progress_and_ends_once(services: Services) -> None:
    job = services.generation.submit(GenerationRequest(**{**QUICK, "num_images": 2}))
    events = list(job.events(previews=True))
    steps = [event for event in events if isinstance(event, Progress)]
    assert [(event.image_index, event.step) for event in steps][-1] == (1, 4)
    assert steps[-1].preview
    assert steps[-1].eta_s == 0
    assert sum(isinstance(event, ImageReady) for event in events) == 2
    assert [type(event) for event in events if isinstance(event, Finished | Failed | Cancelled)] == [Finished]
    assert isinstance(events[-1], Finished)


def test_stop_keeps_what_is_finished_and_nothing_half_made(services: Services) -> None:
    job = services.generation.submit(GenerationRequest(prompt="a red circle", num_images=8, num_inference_steps=20))
    for event in job.events():
        if isinstance(event, ImageReady):
            job.cancel()
    assert isinstance(job.wait(timeout=20), Cancelled)
    records = job_images(job, services.gallery)
    assert 1 <= len(records) < 8
    files = list(services.settings.images_dir.rglob("*.png"))
    assert sorted(files) == sorted(services.gallery.path(record) for record in records)


def test_what_does_not_fit_the_checkpoint_is_refused_before_it_waits(services: Services) -> None:
    with pytest.raises(InvalidRequest, match="64 to 256 px"):
        services.generation.submit(GenerationRequest(prompt="x", width=512))
    assert services.runner.active("local") == []


def test_a_job_killed_in_the_middle_is_finished_by_the_next_start(tmp_path: Path, engine: Engine) -> None:
    data = tmp_path / "data"
    command = [sys.executable, "-c", LONG_JOB, str(data)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        job_id = process.stdout.readline().strip()
        for line in process.stdout:
            if line.strip() == "ImageReady":
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)

    settings = Settings(data_dir=data, offline=True)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        job = services.runner.job(job_id)
        assert isinstance(job.wait(timeout=120), Finished)
        resumed = pixels(services, job_id)
        undisturbed = pixels(
            services, run(services, prompt="a red circle", num_images=4, seed=11, num_inference_steps=40)
        )
    assert len(resumed) == 4
    assert resumed == undisturbed


def test_the_library_call_gives_the_records(services: Services) -> None:
    records = services.generate(**QUICK, num_images=2, seed=3)
    assert [record.recipe.seed for record in records] == [3, 4]
    with pytest.raises(InvalidRequest, match="Steps is 0"):
        services.generate("x", num_inference_steps=0)
