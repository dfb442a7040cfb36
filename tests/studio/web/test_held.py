"""What programs are told of a job that cannot go on, since its pictures cannot be kept: who follows it, that it waits;
who waits for nothing else, at once that it does not come."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from studio.domain.events import Cancelled, Finished
from studio.files import make_folder
from studio.job import Job
from studio.services import Services
from studio.web.a1111.api import a1111_routes
from studio.web.openai.api import openai_routes
from studio.web.own.api import own_routes
from tests.studio.web.conftest import Serve
from tests.unwritable import replaced_by_a_file

PROMPT = "a red circle"
PATIENCE_S = 60


@pytest.fixture
def client(services: Services, serve: Serve) -> Iterator[httpx.Client]:
    """A client of every interface, while no picture can be kept."""
    make_folder(services.settings.images_dir)
    routes = [*own_routes(services), *openai_routes(services), *a1111_routes(services)]
    with httpx.Client(base_url=serve(routes), timeout=PATIENCE_S) as opened:
        yield opened


def only_job(services: Services) -> Job:
    deadline = time.monotonic() + PATIENCE_S
    while not (jobs := services.runner.active("local")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return jobs[0]


def test_who_follows_a_job_learns_what_it_waits_for_and_that_it_went_on(
    client: httpx.Client, services: Services
) -> None:
    with replaced_by_a_file(services.settings.images_dir):
        body = {"kind": "generate", "prompt": PROMPT, "num_inference_steps": 1, "seed": 1}
        address = f"/api/v1/jobs/{client.post('/api/v1/jobs', json=body).json()['id']}"
        assert next(told for told in events(client, address) if told["event"] == "held")["data"]["message"]
        view = client.get(address).json()
        assert view["state"] == "running" and view["held"]["message"] and view["held"]["hint"]
        assert str(services.settings.data_dir) not in json.dumps(view)
    assert [told["event"] for told in events(client, address)][-2:] == ["image_ready", "finished"]
    assert "held" not in [told["event"] for told in events(client, address)], "that is over"
    view = client.get(address).json()
    assert view["state"] == "done" and view["held"] is None and view["num_pictures"] == 1


def events(client: httpx.Client, address: str) -> Iterator[dict[str, Any]]:
    with client.stream("GET", f"{address}/events") as heard:
        name = ""
        for line in heard.iter_lines():
            key, _, value = line.partition(": ")
            name = value if key == "event" else name
            if key == "data":
                yield {"event": name, "data": json.loads(value)}


WAYS = (
    ("/v1/images/generations", {"prompt": PROMPT, "steps": 1}),
    ("/sdapi/v1/txt2img", {"prompt": PROMPT, "steps": 1}),
)


@pytest.mark.parametrize("path, body", WAYS)
@pytest.mark.parametrize("key", ["", "a-key"])
def test_who_waits_for_a_picture_is_told_at_once_and_one_with_a_key_comes_back_for_it(
    client: httpx.Client, services: Services, path: str, body: dict[str, Any], key: str
) -> None:
    headers = {"Idempotency-Key": key} if key else {}
    with replaced_by_a_file(services.settings.images_dir):
        answer = client.post(path, json=body, headers=headers)
        assert answer.status_code == 507 and "folder" in answer.text, answer.text
        job = only_job(services) if key else None
    if job:
        assert isinstance(job.wait(PATIENCE_S), Finished)
    assert client.post(path, json=body, headers=headers).status_code == 200
    assert services.gallery.count() == 1


def test_a_stream_of_a_picture_ends_with_why(client: httpx.Client, services: Services) -> None:
    body = {"prompt": PROMPT, "steps": 1, "stream": True}
    with replaced_by_a_file(services.settings.images_dir):
        answer = client.post("/v1/images/generations", json=body)
        assert "event: error" in answer.text and "folder" in answer.text
        jobs = services.runner.active("local")
        assert all(isinstance(job.wait(10), Cancelled) for job in jobs)
    assert services.gallery.count() == 0
