"""The whole page with the real package `spaces`, where it is installed: `pip install spaces` next to the rest."""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from PIL import Image

from engines.base import Engine
from studio.domain.catalogue import Catalogue
from studio.domain.request import GenerationRequest
from studio.settings import PROJECT_ROOT

pytestmark = pytest.mark.skipif(find_spec("spaces") is None, reason="the package spaces is not installed")

PROMPT = "a red circle on a white background"
PATIENCE_S = 120
VISITOR = "a-visitor-of-this-test-only-0001"


def token(name: str) -> str:
    """As Hugging Face gives one to each visitor: `spaces` looks for an error in its middle part."""
    claims = base64.urlsafe_b64encode(json.dumps({"user": name}).encode()).decode().rstrip("=")
    return f"head.{claims}.tail"


@dataclass
class Scheduler:
    """The service of Hugging Face that gives out GPUs, as `spaces` calls it."""

    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    has_quota: bool = True
    is_idle: bool = True
    """Whether the fork of the last call still has its GPU."""

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        self.asked.append((path, query))
        if path != "/schedule":
            return 200, {}
        if not self.has_quota:
            return 429, {"left": 3, "wait": 600}
        return 200, {"idle": self.is_idle, "nvidiaIndex": 0, "nvidiaUUID": "MIG-0", "allowToken": "allowed"}

    def of(self, path: str) -> list[dict[str, str]]:
        return [query for asked, query in self.asked if asked == path]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[tuple[Scheduler, str]]:
    service = Scheduler()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            address = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(address.query).items()}
            status, body = service.answer(address.path, query)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield service, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@dataclass
class Page:
    http: httpx.Client
    service: Scheduler
    log: Path

    def ask(self, **values: object) -> str:
        asked = {"kind": "generate", "prompt": PROMPT, "seed": 3, "num_inference_steps": 6, **values}
        answer = self.http.post("/api/v1/jobs", json=asked)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def wait(self, job_id: str) -> dict[str, Any]:
        def over() -> dict[str, Any] | None:
            job = self.http.get(f"/api/v1/jobs/{job_id}").json()
            return None if job["state"] in ("queued", "running") else job

        return until(over)

    def pictures(self, job_id: str) -> list[Image.Image]:
        result = self.http.get(f"/api/v1/jobs/{job_id}/result").json()
        return [Image.open(BytesIO(self.http.get(made["url"]).content)) for made in result["pictures"]]


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str | None:
    said = log.read_text()
    assert process.poll() is None, said
    return next((line.split()[4] for line in said.splitlines() if "is at http" in line), None)


def until(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := found()):
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def page(scheduler: tuple[Scheduler, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    service, address = scheduler
    folder = tmp_path_factory.mktemp("space")
    (folder / "cgroup").write_text("0::/space\n")
    told = {
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": address,
        "ZEROGPU_PROC_SELF_CGROUP_PATH": str(folder / "cgroup"),
        "SPACE_ID": "somebody/flash-studio",
        "FLASH_STUDIO_DATA_DIR": str(folder / "data"),
        "FLASH_STUDIO_PORT": "0",
        "FLASH_STUDIO_DEVICE": "cpu",
        "FLASH_STUDIO_BATCHING": "fast",
        "FLASH_STUDIO_WATERMARK": "off",
        "FLASH_STUDIO_OFFLINE": "1",
    }
    log = folder / "log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "tests.zero_gpu_space"]
        process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, env={**os.environ, **told}, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        where = until(partial(_address, process, log))
        headers = {"X-Flash-Visitor": VISITOR, "X-IP-Token": token("somebody")}
        with httpx.Client(base_url=where, headers=headers, timeout=PATIENCE_S) as http:
            yield Page(http, service, log)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def test_it_is_told_at_the_start_that_something_asks_for_a_gpu(page: Page) -> None:
    assert page.service.of("/startup-report")
    assert page.http.get("/health").json()["zero_gpu"] is True


def test_a_picture_is_drawn_on_the_quota_of_who_asked(page: Page, engine: Engine, catalogue: Catalogue) -> None:
    page.service.asked.clear()
    job_id = page.ask()
    assert page.wait(job_id)["state"] == "done", page.log.read_text()
    (schedule,) = page.service.of("/schedule")
    assert schedule["token"] == token("somebody")
    assert int(schedule["durationSeconds"]) >= 15
    assert len(page.service.of("/release")) == 1 and page.service.of("/release")[0]["fail"] == "false"
    recipe = catalogue.resolve(GenerationRequest(prompt=PROMPT, seed=3, num_inference_steps=6)).single(0)
    plain = engine.generate(recipe, (PROMPT, ""), cancelled=lambda: False, on_step=lambda step: None)
    (made,) = page.pictures(job_id)
    assert made.convert("RGB").tobytes() == plain.image.tobytes()


def test_several_of_one_request_are_drawn_at_once(page: Page) -> None:
    page.service.asked.clear()
    job_id = page.ask(num_images=3, seed=50)
    assert page.wait(job_id)["state"] == "done", page.log.read_text()
    assert len(page.service.of("/schedule")) == 1 and len(page.pictures(job_id)) == 3


def test_it_is_watched_and_stopped_on_the_way(page: Page) -> None:
    job_id = page.ask(num_inference_steps=150, seed=60)
    with page.http.stream("GET", f"/api/v1/jobs/{job_id}/events?previews=1") as events:
        shown = next(line for line in events.iter_lines() if '"preview"' in line and '"step"' in line)
    assert shown
    page.http.post(f"/api/v1/jobs/{job_id}/cancel")
    assert page.wait(job_id)["state"] == "cancelled"
    assert page.wait(page.ask(seed=61))["state"] == "done", page.log.read_text()


def test_who_has_no_quota_left_is_told_when_to_come_back(page: Page) -> None:
    page.service.has_quota = False
    try:
        job = page.wait(page.ask(seed=70))
    finally:
        page.service.has_quota = True
    assert job["state"] == "failed"
    told = json.dumps(job)
    assert "GPU time" in told and "Try again in 0:10:00" in told
    assert page.wait(page.ask(seed=71))["state"] == "done"


def test_a_fork_that_has_lost_its_gpu_is_not_used_again(page: Page) -> None:
    page.service.is_idle = False
    try:
        page.service.asked.clear()
        assert [page.wait(page.ask(seed=seed))["state"] for seed in (80, 81)] == ["done", "done"]
    finally:
        page.service.is_idle = True
    assert len(page.service.of("/allow")) == 2  # each fork asks for its GPU once
