"""What a watchdog asks: does it live, can it work, and which part cannot."""

import shutil
import sqlite3
from collections import namedtuple
from collections.abc import Iterator

import httpx
import pytest

from studio import __version__
from studio.services import Services
from studio.web import health
from tests.studio.web.conftest import Serve

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def watch(services: Services, serve: Serve) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve(health.health_routes(services)), timeout=60) as client:
        yield client


def problems(watch: httpx.Client) -> dict[str, str]:
    """What is told of a studio that is not ready; it lives all the same."""
    answer = watch.get("/health/ready")
    assert answer.status_code == 503 and answer.json()["ok"] is False
    assert watch.get("/health").status_code == 200
    told = answer.json()["problems"]
    assert all(sentence.endswith(".") and "/" not in sentence for sentence in told.values())
    return told


def test_a_studio_that_works_is_ready(watch: httpx.Client) -> None:
    live = watch.get("/health").json()
    assert live["ok"] is True and live["version"] == __version__ and live["loaded"] == []
    answer = watch.get("/health/ready")
    assert answer.status_code == 200 and answer.json() == {"ok": True, "problems": {}}
    assert answer.headers["cache-control"] == "no-store"


def test_loaded_models_are_told(watch: httpx.Client, services: Services) -> None:
    services.generate("a red circle", num_inference_steps=1)
    assert "pocket-sd15" in watch.get("/health").json()["loaded"]


def test_a_worker_that_ended_is_told(watch: httpx.Client, services: Services) -> None:
    services.runner.stop(timeout=10)
    assert set(problems(watch)) == {"worker"}


def test_a_ledger_that_does_not_answer_is_told(watch: httpx.Client, services: Services) -> None:
    services.runner.stop(timeout=10)
    services.trainer.stop(timeout=10)
    with sqlite3.connect(services.settings.data_dir / "studio.db") as database:
        database.execute("DROP TABLE jobs")
    assert "ledger" in problems(watch)
    assert watch.get("/metrics").status_code == 503


def test_a_data_folder_that_cannot_be_written_is_told(watch: httpx.Client, services: Services) -> None:
    folder = services.settings.data_dir
    folder.rename(folder.with_name("elsewhere"))
    try:
        assert "disk" in problems(watch)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name("elsewhere").rename(folder)
    assert watch.get("/health/ready").status_code == 200


def test_a_disk_that_is_nearly_full_is_told(watch: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health.shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 99_000_000, 99_000_000))
    assert problems(watch) == {"disk": "Only 99 MB are free where data are kept; 100 are needed."}
