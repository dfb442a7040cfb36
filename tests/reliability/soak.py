"""What a studio is asked for over hours, by one person who waits for each thing before asking for the next."""

import contextlib
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import psutil

ADAPTERS = ("Moons", "Suns")
PROMPTS = ("a red circle", "a red circle <lora:Moons:0.8>", "a blue star <lora:Suns:0.5>", "a ring <lora:Moons:0.4>")
MODELS = ("pocket-sd15", "pocket-sd15", "pocket-sd15", "pocket-sd21", "pocket-sd15", "pocket-sd15")
READ = ("/", "/config", "/health", "/metrics", "/api/v1/models", "/api/v1/adapters", "/api/v1/pictures?limit=20",
        "/api/v1/jobs", "/sdapi/v1/options")  # fmt: skip
PATIENCE_S = 120.0
LOOKS = 40


@dataclass
class Measured:
    """A process as it was while it did nothing, after so many drawings each time."""

    process: psutil.Process
    drawn: list[int] = field(default_factory=list[int])
    mb: list[float] = field(default_factory=list[float])
    files: list[int] = field(default_factory=list[int])
    threads: list[int] = field(default_factory=list[int])

    def look(self, drawn: int) -> None:
        with self.process.oneshot():
            self.drawn.append(drawn)
            self.mb.append(self.process.memory_info().rss / 1e6)
            self.files.append(self.process.num_fds())
            self.threads.append(self.process.num_threads())

    def mb_per_thousand(self, warm_up: int) -> float:
        """How much larger it got with a thousand drawings: the median slope of all pairs of looks after the warm-up,
        on which single peaks have no weight."""
        looks = [(n, mb) for n, mb in zip(self.drawn, self.mb, strict=True) if n >= warm_up]
        return statistics.median(
            (late - early) / (last - first) * 1000 for (first, early), (last, late) in combinations(looks, 2)
        )


class Person:
    """Asks over HTTP for whatever the next drawing needs, and opens the page now and then."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def draw(self, number: int) -> list[str]:
        """One picture, of another model and adapter than the one before; gives the ids of its pictures."""
        body = {
            "kind": "generate", "prompt": PROMPTS[number % len(PROMPTS)], "checkpoint": MODELS[number % len(MODELS)],
            "num_inference_steps": 1, "seed": number,
        }  # fmt: skip
        if body["checkpoint"] != "pocket-sd15":
            body["prompt"] = "a red circle"
        answer = self._client.post("/api/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        job_id, deadline = answer.json()["id"], time.monotonic() + PATIENCE_S
        while (told := self._client.get(f"/api/v1/jobs/{job_id}").json())["state"] in ("queued", "running"):
            assert time.monotonic() < deadline, told
            time.sleep(0.02)
        assert told["state"] == "done", told
        return [picture["id"] for picture in told["pictures"]]

    def read(self, number: int, picture_id: str) -> None:
        """A file of a picture, and some other thing that is served."""
        for path in (f"/pictures/{picture_id}.png", f"/pictures/{picture_id}/thumb", READ[number % len(READ)]):
            answer = self._client.get(path)
            assert answer.status_code == 200, (path, answer.status_code)

    def open_page(self, number: int) -> None:
        """As a browser does: what it shows, and everything that it asks for when it is there; then it is closed."""
        session = f"soak{number}"
        told = self._client.get("/config").json()
        values = {part["id"]: part["props"].get("value") for part in told["components"]}
        with self._client.stream("GET", f"/gradio_api/heartbeat/{session}"):
            loads = [each for each in told["dependencies"] if "load" in [kind for _, kind in each["targets"]]]
            for each in loads:
                if each["backend_fn"]:
                    self._call(each, [values.get(part) for part in each["inputs"]], session)
            assert loads

    def _call(self, listener: dict[str, Any], inputs: list[Any], session: str) -> None:
        asked = {"fn_index": listener["id"], "data": inputs, "session_hash": session}
        if not listener["queue"]:
            self._client.post("/gradio_api/run/predict", json=asked)
            return
        assert self._client.post("/gradio_api/queue/join", json=asked).status_code == 200
        with self._client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:") and json.loads(line[5:])["msg"] in ("process_completed", "close_stream"):
                    return


def soak(url: str, process: psutil.Process, count: int, remembered: int, said: Callable[[str], None]) -> Measured:
    """So many drawings, and so many looks as fit. Before them a request is repeated until `remembered` jobs are: those
    that the studio keeps in memory take some kilobytes each, and later ones replace them."""
    measured, every = Measured(process), max(10, count // LOOKS)
    with httpx.Client(base_url=url, timeout=60) as client:
        person = Person(client)
        for _ in range(remembered):
            person.draw(0)
        for number in range(1, count + 1):
            (picture_id,) = person.draw(number)
            person.read(number, picture_id)
            if number % 10 == 0:
                person.open_page(number)
            if number % every == 0:
                _wait_until_quiet(measured.process)
                measured.look(number)
                said(f"{number}: {measured.mb[-1]:.1f} MB, {measured.files[-1]} files, {measured.threads[-1]} threads")
    return measured


def _wait_until_quiet(process: psutil.Process) -> None:
    """Until what the last requests left is put away: no connection but the one that asks, no thread at work."""
    deadline = time.monotonic() + 5
    before = -1.0
    while time.monotonic() < deadline:
        now = sum(process.cpu_times()[:2])
        if now - before < 0.02:
            return
        before = now
        time.sleep(0.3)


def keep_adapters(folder: Path, make: Callable[..., Path]) -> None:
    """The adapters that are drawn with."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(parents=True)
    for scale, name in enumerate(ADAPTERS, 1):
        make(folder / f"{name}.safetensors", scale=scale)
