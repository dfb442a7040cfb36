"""Real workers on the command line, killed at any instant: each picture is captioned, and none that was kept again."""

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from studio.captions.shards import Reading
from studio.domain.captions import Status
from studio.processes import child_environment
from tests.studio.captions.scenes import chosen_in, digest
from tests.studio.groq_server import KEY, GroqServer, Reply, groq_server, picture_in, said

pytestmark = pytest.mark.slow

PICTURES = int(os.environ.get("STUDIO_KILL_PICTURES", "240"))
KILLS = int(os.environ.get("STUDIO_KILLS", "20"))
LOST = 0.01
"""Of the requests, where the workers are killed and not what works for them."""
ANSWER_S = float(os.environ.get("STUDIO_KILL_ANSWER_S", "0.02"))
WORKERS = 4


def tiny_pictures(folder: Path) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:04}.png" for number in range(PICTURES)]
    for number, path in enumerate(paths):
        Image.new("RGB", (16, 16), (number % 256, number // 256 * 32, 99)).save(path)
    return paths


class Fleet:
    """Four workers, each with a part; one that is killed or done is begun again as long as it has work."""

    def __init__(self, folder: Path, server: GroqServer, data: Path) -> None:
        unlimited = {
            f"FLASH_STUDIO_GROQ_{name}": "0"
            for name in ("REQUESTS_PER_MINUTE", "REQUESTS_PER_DAY", "TOKENS_PER_MINUTE", "TOKENS_PER_DAY")
        }
        self.environment = {
            **child_environment(), **unlimited, "GROQ_API_KEY": KEY, "GROQ_BASE_URL": server.url,
            "FLASH_STUDIO_DATA_DIR": str(data), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.folder = folder
        self.errors = (data.parent / "errors.txt").open("wb")
        self.processes = {index: self.begun(index) for index in range(1, WORKERS + 1)}

    def begun(self, index: int) -> subprocess.Popen[bytes]:
        part = f"{index}/{WORKERS}"
        command = ["dataset", "caption", str(self.folder), "--captioner", "groq", "--yes", "--quiet", "--shard", part]
        return subprocess.Popen(
            [sys.executable, "-m", "studio", *command],
            env=self.environment, stdout=subprocess.DEVNULL, stderr=self.errors,
        )  # fmt: skip

    def kill(self, index: int, *, is_tree: bool) -> None:
        process = self.processes[index]
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children() if is_tree else ():
                child.kill()
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.processes[index] = self.begun(index)

    def finish(self) -> tuple[list[int], bytes]:
        codes = [process.wait(timeout=300) for process in self.processes.values()]
        self.errors.close()
        return codes, Path(self.errors.name).read_bytes()


@pytest.mark.parametrize("is_tree", [False, True], ids=["workers", "trees"])
def test_every_picture_once_whatever_is_killed(tmp_path: Path, is_tree: bool) -> None:
    folder = tmp_path / "p"
    paths = tiny_pictures(folder)
    asked: Counter[str] = Counter()
    lock = threading.Lock()

    def answer(request: dict[str, Any], place: int) -> Reply:
        picture = hashlib.sha256(picture_in(request)).hexdigest()
        with lock:
            asked[picture] += 1
        time.sleep(ANSWER_S)
        return said(f"A plain square of one colour, known as {picture}.")

    chance, kills, hurt = random.Random(7), 0, 0
    with groq_server(answer=answer) as server:
        fleet = Fleet(folder, server, tmp_path / "data")
        while kills < KILLS and sum(asked.values()) < PICTURES:
            goal = sum(asked.values()) + chance.randint(1, max(2, PICTURES // (KILLS + 2)))
            deadline = time.monotonic() + 30
            while sum(asked.values()) < min(goal, PICTURES) and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.05))
            index = chance.randint(1, WORKERS)
            hurt += fleet.processes[index].poll() is None
            fleet.kill(index, is_tree=is_tree)
            kills += 1
        assert fleet.finish() == ([0] * WORKERS, b"")
    calls = sum(asked.values())
    print(f"{PICTURES} pictures, {kills} kills, {hurt} of workers at work: {calls} calls")
    _, reading = chosen_in(tmp_path / "p-captions")
    rows = list(Reading(folders=[tmp_path / "p-captions"]).rows())
    assert Counter(row.digest for row in rows) == Counter(digest(path) for path in paths)  # each once
    assert all(row.status is Status.DONE for row in rows) and reading.bad == []
    # A worker asks one at a time. What is under way when it is killed outlives it, unless that is killed as well.
    assert calls - PICTURES <= (hurt if is_tree else LOST * PICTURES)
    assert kills >= min(KILLS, 20)
