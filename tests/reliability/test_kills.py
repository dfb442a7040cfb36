"""P1: killed at any instant while it draws and saves, the studio loses nothing that it acknowledged."""

import contextlib
import os
import random
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from PIL import Image

from engines.base import Engine
from studio.generation import EngineHolder
from studio.ledger import Ledger
from studio.metadata import pixels_sha256
from studio.services import open_services
from studio.settings import Settings
from tests.reliability.conftest import Score
from tests.reliability.drawing import PROMPT, command, draw_for_ever

SEED = 20261127
KILLS = int(os.environ.get("STUDIO_GENERATE_KILLS", "200"))
PATIENCE_S = 60.0


@dataclass
class Told:
    """What killed processes had acknowledged."""

    jobs: dict[str, int] = field(default_factory=dict[str, int])
    pictures: set[str] = field(default_factory=set[str])

    def hear(self, receiver: Connection) -> None:
        """Everything that a process said before its end."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                self.take(receiver.recv())

    def take(self, said: tuple[str, int] | str) -> None:
        if isinstance(said, str):
            self.pictures.add(said)
        else:
            self.jobs[said[0]] = said[1]


def kill_while_it_draws(
    forks: ForkServerContext, data_dir: Path, told: Told, rng: random.Random, at_start: bool
) -> None:
    receiver, sender = forks.Pipe(duplex=False)
    child = forks.Process(target=draw_for_ever, args=(data_dir, rng.getrandbits(32), sender))
    child.start()
    sender.close()
    before = len(told.pictures)
    with receiver:
        while not at_start and len(told.pictures) == before:
            assert receiver.poll(PATIENCE_S)
            told.take(receiver.recv())
        time.sleep(rng.uniform(0, 1.5) if at_start else rng.uniform(0, 0.4))
        child.kill()
        child.join()
        told.hear(receiver)


def kill_a_command(forks: ForkServerContext, data_dir: Path, rng: random.Random) -> None:
    arguments = ["generate", PROMPT, "--num", "9", "--steps", "2", "--seed", f"{rng.getrandbits(32)}"]
    before = num_pngs(data_dir)
    child = forks.Process(target=command, args=(data_dir, arguments))
    child.start()
    deadline = time.monotonic() + PATIENCE_S
    while num_pngs(data_dir) == before and child.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.5))
    child.kill()
    child.join()
    assert num_pngs(data_dir) > before


def num_pngs(data_dir: Path) -> int:
    return sum(1 for _ in (data_dir / "images").rglob("*.png"))


class Looker:
    """Looks at what lies on the disk after each kill, before any process mends it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen: set[str] = set()

    def check(self, told: Told) -> None:
        ledger = Ledger(self._settings.ledger_url)
        paths = ledger.image_paths()
        for path in self._settings.images_dir.rglob("*.png"):
            name = path.relative_to(self._settings.images_dir).as_posix()
            if name in self._seen:
                continue
            with Image.open(path) as image:  # raises where it is half a picture
                pixels = pixels_sha256(image)
            assert name not in paths or ledger.image(paths[name]).pixels_sha256 == pixels
            self._seen.add(name)
        assert [path for path in paths if not (self._settings.images_dir / path).exists()] == []
        assert told.pictures <= set(paths.values())
        assert {
            job_id for job_id in told.jobs if ledger.job(job_id).state not in ("queued", "running", "done")
        } == set()
        ledger.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kills",
    [6, pytest.param(40, marks=pytest.mark.full), pytest.param(KILLS, marks=pytest.mark.long)],
    ids=["quick", "full", "long"],
)
def test_killed_at_any_instant_nothing_acknowledged_is_lost(
    settings: Settings, engine: Engine, forks: ForkServerContext, score: Score, kills: int
) -> None:
    print(f"seed {SEED}, {kills} kills")
    rng, told, looker = random.Random(SEED), Told(), Looker(settings)
    for n in range(kills):
        if n % 6 == 5:
            kill_a_command(forks, settings.data_dir, rng)
        else:
            kill_while_it_draws(forks, settings.data_dir, told, rng, at_start=n % 6 == 3)
        looker.check(told)
        score(faults=1, survived=1)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        for job_id in told.jobs:
            services.runner.job(job_id).wait(PATIENCE_S)
        looker.check(told)
        indexes = {job_id: [made.image_index for made in services.gallery.of_job(job_id)] for job_id in told.jobs}
        lost = {job_id for job_id, num_images in told.jobs.items() if indexes[job_id] != list(range(num_images))}
        score(lost=len(lost))
        assert told.jobs and not lost
        assert {services.runner.row(job_id).state for job_id in told.jobs} == {"done"}
        assert services.runner.active(None) == []  # no command's job waits for ever
