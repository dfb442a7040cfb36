"""A request becomes pictures that do not depend on company, order, restarts or kills."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from engines.base import Engine
from studio.domain.errors import InvalidRequest
from studio.domain.events import Cancelled, Drawing, Failed, Finished, ImageReady, Progress
from studio.domain.images import ImageRecord
from studio.domain.request import GenerationRequest
from studio.generation import EngineHolder, job_images
from studio.services import Services, open_services
from studio.settings import PROJECT_ROOT, Settings
from tests.studio.adapter_files import adapter_file

QUICK = {"prompt": "a red circle on a white background", "num_inference_steps": 4}

LONG_JOB = """
import sys
from pathlib import Path
from studio.domain.request import GenerationRequest
from studio.services import open_services
from studio.settings import Settings
services = open_services(Settings(data_dir=Path(sys.argv[1]), offline=True))
services.generate("a red circle", seed=12, num_inference_steps=40)
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
    """Draw pictures, even those that were made before; the id of the job."""
    job = services.generation.submit(GenerationRequest(**{**QUICK, **values}), again=True)
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
    assert {0, 1} == {event.image_index for event in steps}
    assert all(1 <= event.step <= event.total == 4 for event in steps)
    assert steps[-1].preview
    assert steps[-1].eta_s is not None
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
        ready = 0
        while ready < 2:  # the first was made before
            ready += process.stdout.readline().strip() == "ImageReady"
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)

    settings = Settings(data_dir=data, offline=True)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        job = services.runner.job(job_id)
        assert isinstance(job.wait(timeout=120), Finished)
        assert [record.job_id == job_id for record in job_images(job, services.gallery)] == [True, False, True, True]
        assert services.gallery.count() == 4
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


# A request that is repeated exactly


def ask(services: Services, visitor: str = "local", **values: object) -> list[ImageRecord]:
    job = services.generation.submit(GenerationRequest(**{**QUICK, "seed": 5, **values}), visitor)
    assert isinstance(job.wait(timeout=120), Finished)
    return job_images(job, services.gallery)


def test_a_repeated_request_is_answered_with_the_picture_without_an_engine(
    services: Services, settings: Settings, engine: Engine
) -> None:
    first = services.generate(**QUICK, seed=5, num_images=2)
    services.close()

    def load() -> Engine:
        raise AssertionError("the engine was asked for")

    known = settings.model_copy(update={"device": engine.state().device})
    with open_services(known, engine=EngineHolder(load)) as again:
        assert again.generate(**QUICK, seed=5, num_images=2) == first
        job = again.generation.submit(GenerationRequest(**QUICK, seed=5))
        assert not any(isinstance(event, Drawing | Progress) for event in job.events())
        assert again.gallery.count() == 2


def test_of_several_pictures_those_that_are_there_are_reused_and_the_others_drawn(services: Services) -> None:
    (there,) = ask(services, seed=6)
    services.gallery.star(there.id, True)
    job = services.generation.submit(GenerationRequest(**QUICK, seed=5, num_images=3))
    events = list(job.events())
    assert [event.image_index for event in events if isinstance(event, ImageReady)] == [1, 0, 2]
    assert [event.num_images for event in events if isinstance(event, Progress)][-1] == 3
    made = job_images(job, services.gallery)
    assert [record.recipe.seed for record in made] == [5, 6, 7]
    assert [record.id == there.id for record in made] == [False, True, False]
    assert made[1].is_starred
    assert services.gallery.count() == 3


def test_who_insists_gets_it_drawn_again(services: Services) -> None:
    (first,) = services.generate(**QUICK, seed=5)
    (again,) = services.generate(**QUICK, seed=5, again=True)
    assert again.id != first.id and again.pixels_sha256 == first.pixels_sha256
    assert ask(services) == [again]


@pytest.mark.parametrize(
    "change",
    [{"seed": 6}, {"num_inference_steps": 3}, {"guidance_scale": 4.0}, {"style": "on_navy"}, {"negative_prompt": "x"}],
)
def test_a_request_that_differs_is_drawn(services: Services, change: dict[str, object]) -> None:
    (first,) = ask(services)
    assert ask(services, **change)[0].id != first.id


def test_the_pictures_of_others_are_not_reused(services: Services) -> None:
    (mine,) = ask(services, visitor="me")
    (theirs,) = ask(services, visitor="they")
    assert mine.id != theirs.id
    assert ask(services, visitor="me") == [mine]


@pytest.mark.parametrize("loss", ["deleted", "no file", "painted over", "cut short"])
def test_a_picture_that_is_lost_is_drawn_again(services: Services, loss: str) -> None:
    (first,) = ask(services)
    path = services.gallery.path(first)
    if loss == "deleted":
        services.gallery.delete(first.id)
    elif loss == "no file":
        path.unlink()
    elif loss == "painted over":
        Image.new("RGB", (128, 128), "red").save(path)
    else:
        path.write_bytes(path.read_bytes()[:2000])
    (second,) = ask(services)
    assert second.id != first.id and second.pixels_sha256 == first.pixels_sha256


@pytest.fixture
def own_copy(services: Services) -> Iterator[Path]:
    """The checkpoint lies in the models folder; the shared engine draws with the same weights."""
    row = services.catalogue.checkpoint("pocket-sd15")
    assert row.folder is not None
    yield shutil.copytree(PROJECT_ROOT / row.folder, services.settings.models_dir / row.id)


def test_a_checkpoint_that_was_exchanged_gives_no_picture_of_the_old_one(services: Services, own_copy: Path) -> None:
    (first,) = ask(services)
    assert ask(services) == [first]
    weights = next((own_copy / "unet").glob("*.safetensors"))
    content = weights.read_bytes()
    status = weights.stat()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ask(services)[0].id != first.id
    weights.write_bytes(content)
    assert ask(services)[0].pixels_sha256 == first.pixels_sha256
    (own_copy / "model_index.json").write_text("{")
    known = {record.id for record in services.gallery.find()}
    assert ask(services)[0].id not in known


def test_settings_of_a_checkpoint_that_were_edited_give_no_old_picture(services: Services, own_copy: Path) -> None:
    (first,) = ask(services)
    config = own_copy / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"beta_end": 0.02}))
    assert ask(services)[0].id != first.id


def test_another_adapter_of_the_same_name_gives_no_old_picture(services: Services, tmp_path: Path) -> None:
    store, prompt = services.adapters.store, "a red star <lora:ink:0.9>"
    store.add(adapter_file(tmp_path / "ink.safetensors"))
    (first,) = ask(services, prompt=prompt)
    assert ask(services, prompt=prompt) == [first]
    assert ask(services, prompt="a red star <lora:ink:0.8>")[0].id != first.id
    store.remove("ink")
    store.add(adapter_file(tmp_path / "ink.safetensors", scale=2))
    assert ask(services, prompt=prompt)[0].id != first.id


def test_another_version_of_what_draws_gives_no_old_picture(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = ask(services)
    monkeypatch.setattr("studio.generation.__version__", "99.0")
    (newer,) = ask(services)
    assert newer.id != first.id and newer.environment["studio"] == "99.0"
    assert ask(services) == [newer]
    monkeypatch.setattr("engines.identity.version", lambda name: "99.0")
    assert ask(services)[0].id != newer.id


def test_a_reused_picture_still_belongs_to_its_job_after_a_restart(
    services: Services, settings: Settings, engine: Engine
) -> None:
    (there,) = ask(services, seed=6)
    job = services.generation.submit(GenerationRequest(**QUICK, seed=5, num_images=3))
    job.wait(timeout=120)
    before = job_images(job, services.gallery)
    services.close()
    with open_services(settings, engine=EngineHolder(lambda: engine)) as again:
        assert job_images(again.runner.job(job.id), again.gallery) == before
        again.gallery.delete(there.id)
        left = job_images(again.runner.job(job.id), again.gallery)
        assert [record.recipe.seed for record in left] == [5, 7]
