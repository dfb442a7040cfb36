"""What other processes do until they are killed: draw, as the studio and as the command line."""

import os
import random
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from studio.cli.main import main
from studio.domain.events import ImageReady
from studio.domain.request import GenerationRequest
from studio.services import Services, open_services
from studio.settings import Settings

PROMPT = "a red circle"


def draw_for_ever(data_dir: Path, seed: int, said: Connection) -> None:
    """Ask for pictures and draw them, always with a job in line, and say each that the studio acknowledges: a job by
    its id and how many pictures it has, a picture by its id."""
    rng = random.Random(seed)
    with open_services(Settings(data_dir=data_dir, offline=True)) as services:
        while True:
            while len(services.runner.active(None)) < 2:
                said.send(asked(services, rng))
            for event in services.runner.active(None)[0].events(previews=False):
                if isinstance(event, ImageReady):
                    said.send(event.image_id)


def asked(services: Services, rng: random.Random) -> tuple[str, int]:
    request = GenerationRequest(
        prompt=PROMPT, num_images=rng.randint(1, 3), num_inference_steps=rng.randint(1, 4), seed=rng.getrandbits(32)
    )
    return services.generation.submit(request, again=True).id, request.num_images


def command(data_dir: Path, arguments: Sequence[str]) -> None:
    """`python -m studio` with `arguments`, its output thrown away."""
    os.environ["FLASH_STUDIO_DATA_DIR"] = str(data_dir)
    os.environ["FLASH_STUDIO_OFFLINE"] = "1"
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    raise SystemExit(main(list(arguments)))
