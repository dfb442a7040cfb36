"""P6: a folder for pictures that is gone, is another's or is none, and names of every kind."""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engines.base import Engine
from studio.domain.errors import StorageFailed, StudioError
from studio.domain.events import Cancelled, Finished, Held, Progress
from studio.domain.request import GenerationRequest
from studio.gallery import Gallery
from studio.generation import EngineHolder, job_images
from studio.job import Job
from studio.ledger import Ledger
from studio.services import Services, open_services
from studio.settings import Settings
from tests.reliability.conftest import Score
from tests.studio.records import CATALOGUE, new_image, picture
from tests.unwritable import full, read_only, replaced_by_a_file

LONGEST_S = 3.0
"""From the instant that something cannot be written until that is said, in seconds. It is one where nothing else is at
work; other tests may be."""
PROMPT = "a red circle"
NOBODY = 65534


BROKEN = (replaced_by_a_file, read_only, full)


def asked(services: Services, seed: int) -> Job:
    return services.generation.submit(GenerationRequest(prompt=PROMPT, seed=seed, num_inference_steps=1))


def held(job: Job) -> tuple[Held, float]:
    """What a job is held for, and how long after its last step that was told: drawing takes what it takes."""
    last_step = time.monotonic()
    for event in job.events(timeout=60):
        if isinstance(event, Progress):
            last_step = time.monotonic()
        if isinstance(event, Held):
            return event, time.monotonic() - last_step
    raise AssertionError("it was not held")


@pytest.mark.parametrize("broken", BROKEN)
def test_a_job_whose_folder_cannot_be_written_waits_with_a_sentence_and_ends_by_itself(
    services: Services, broken: Callable[[Path], AbstractContextManager[None]], score: Score
) -> None:
    before = services.generate(PROMPT, seed=1, num_inference_steps=1)[0]
    with broken(services.settings.images_dir):
        job, next_in_line = asked(services, seed=2), asked(services, seed=3)
        told, seconds = held(job)
        assert seconds < LONGEST_S and told.hint
        assert str(services.settings.data_dir) not in told.message + told.hint
        assert services.runner.row(job.id).state == "running", "it is not over"
        assert not services.runner.is_at_work(), "no training has to wait for it"
        assert services.runner.row(next_in_line.id).state == "queued", "nothing is drawn for nothing"
    assert isinstance(job.wait(60), Finished) and isinstance(next_in_line.wait(60), Finished)
    made = [before, *job_images(job, services.gallery), *job_images(next_in_line, services.gallery)]
    assert [record.recipe.seed for record in made] == [1, 2, 3] and services.gallery.count() == 3
    assert all(services.gallery.is_whole(record) for record in made)
    score(faults=1, survived=1)


def test_a_held_job_stops_when_it_is_told_to_and_the_next_one_begins(services: Services, score: Score) -> None:
    services.generate(PROMPT, seed=1, num_inference_steps=1)
    with replaced_by_a_file(services.settings.images_dir):
        job = asked(services, seed=2)
        held(job)
        began = time.monotonic()
        job.cancel()
        assert isinstance(job.wait(10), Cancelled) and time.monotonic() - began < LONGEST_S
        with pytest.raises(StorageFailed) as failed:  # who calls the library waits for nothing
            services.generate(PROMPT, seed=3, num_inference_steps=1)
        assert failed.value.hint
    assert services.generate(PROMPT, seed=4, num_inference_steps=1)
    assert sorted(record.recipe.seed for record in services.gallery.find()) == [1, 4]
    score(faults=1, survived=1)


def test_a_held_job_stops_though_its_database_is_locked(services: Services, score: Score) -> None:
    services.generate(PROMPT, seed=1, num_inference_steps=1)
    with replaced_by_a_file(services.settings.images_dir):
        job = asked(services, seed=2)
        held(job)
        with closing(sqlite3.connect(services.settings.data_dir / "studio.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            assert job.cancel() and isinstance(job.wait(60), Cancelled)
    assert services.generate(PROMPT, seed=3, num_inference_steps=1)
    assert sorted(record.recipe.seed for record in services.gallery.find()) == [1, 3]
    score(faults=1, survived=1)


def test_a_held_job_outlives_the_studio(tmp_path: Path, engine: Engine, score: Score) -> None:
    settings = Settings(data_dir=tmp_path, offline=True)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        services.generate(PROMPT, seed=1, num_inference_steps=1)
        with replaced_by_a_file(settings.images_dir):
            job = asked(services, seed=2)
            held(job)
            services.runner.stop(timeout=30)
        assert services.runner.row(job.id).state == "queued"
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        assert isinstance(services.runner.job(job.id).wait(60), Finished)
        assert services.gallery.count() == 2
    score(faults=1, survived=1)


def test_a_deleted_folder_is_made_anew(services: Services, score: Score) -> None:
    services.generate(PROMPT, seed=1, num_inference_steps=1)
    shutil.rmtree(services.settings.images_dir)
    made = services.generate(PROMPT, seed=2, num_inference_steps=1)[0]
    assert services.gallery.is_whole(made)
    services.gallery.reconcile()
    assert services.gallery.find() == [made]
    score(faults=1, survived=1)


def gallery_in(folder: Path) -> Gallery:
    return Gallery(folder / "images", Ledger(f"sqlite:///{folder / 'own' / 'studio.db'}"), CATALOGUE)


def save_as_nobody(folder: Path, said: Connection) -> None:
    """Save a picture in a folder that belongs to somebody else, and again when one may."""
    with TemporaryDirectory() as own:  # all that is imported on first use: nobody may not read everywhere
        gallery = gallery_in(Path(own))
        gallery.save(picture(0), new_image("zero"))
        gallery.find()
        shutil.rmtree(Path(own) / "images")
        (Path(own) / "images").write_text("no folder")
        with suppress(StorageFailed):
            gallery.save(picture(0), new_image("refused"))
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    gallery, began = gallery_in(folder), time.monotonic()
    try:
        gallery.save(picture(1), new_image("one"))
        told = ""
    except StorageFailed as error:
        told = str(error)
    said.send((told, time.monotonic() - began))
    said.recv()
    gallery.save(picture(2), new_image("two"))
    said.send([made.job_id for made in gallery.find()])


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
@pytest.mark.parametrize("mode", [0o755, 0o555, 0o700])
def test_a_folder_of_somebody_else_is_said_and_used_once_one_may(
    forks: ForkServerContext, score: Score, mode: int
) -> None:
    with TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part, rights in (("own", 0o777), ("images", mode)):
            (folder / part).mkdir()
            (folder / part).chmod(rights)
        receiver, sender = forks.Pipe()
        child = forks.Process(target=save_as_nobody, args=(folder, sender))
        child.start()
        sender.close()  # so that the end of the child is the end of the line, and said at once
        assert receiver.poll(60)
        told, seconds = receiver.recv()
        assert "cannot be written" in told and "permission" in told and name not in told and seconds < LONGEST_S
        (folder / "images").chmod(0o777)
        receiver.send("go on")
        assert receiver.poll(60) and receiver.recv() == ["two"]
        child.join(30)
        assert child.exitcode == 0
    score(faults=1, survived=1)


NAMES = ("with spaces", "Bilder für Ä ö ü ß", "青い丸", "🟥 emoji", "-rf", "a%20b", "a?b#c", "'one' \"two\"",
         "n\u0303", "x" * 255, "é" * 127)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_folders_of_any_name_are_drawn_into(tmp_path: Path, engine: Engine, score: Score, name: str) -> None:
    settings = Settings(data_dir=tmp_path / name, offline=True)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        made = services.generate(PROMPT, seed=1, num_inference_steps=1)[0]
        assert services.gallery.is_whole(made) and services.gallery.find() == [made]
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        assert services.gallery.find() == [made]
    score(inputs=1)


def test_a_name_that_is_too_long_is_said_at_once(tmp_path: Path, score: Score) -> None:
    began = time.monotonic()
    with pytest.raises(StudioError) as refused:
        open_services(Settings(data_dir=tmp_path / ("x" * 256), offline=True))
    assert time.monotonic() - began < LONGEST_S and refused.value.hint
    score(faults=1, survived=1)
