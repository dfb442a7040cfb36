"""Q5, Q6 and Q7: what is drawn beside it, before it or through which door changes no pixel and no number."""

import base64
import io
import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from engines.base import Engine
from studio.cli.main import main
from studio.domain.events import Finished
from studio.domain.request import GenerationRequest
from studio.domain.run_files import EXPORTS
from studio.domain.training import TrainingPlan, TrainingRequest, parse_training
from studio.generation import EngineHolder
from studio.metadata import pixels_sha256
from studio.runs import Run
from studio.services import Services, open_services
from studio.settings import PROJECT_ROOT, Settings
from studio.web.routes import all_routes
from tests.reliability.conftest import Score
from tests.studio.adapter_files import adapter_file
from tests.studio.web.conftest import served

PATIENCE_S = 300
KINDS: tuple[dict[str, Any], ...] = (
    {"prompt": "a red circle"},
    {"prompt": "a red circle <lora:Moons:0.8>"},
    {"prompt": "a red circle <lora:Moons:0.3> <lora:Suns:1>", "scheduler": "euler_a"},
    {"prompt": "a red circle", "checkpoint": "pocket-sd21"},
    {"prompt": "a red circle", "scheduler": "lcm", "clip_skip": 2},
    {"prompt": "a (red:1.3) circle", "decoder": "half", "negative_prompt": "blue"},
)
"""Ways of drawing that differ in model, adapters, sampler or decoder; all of one seed."""


def asked(services: Services, values: dict[str, Any], visitor: str = "local") -> Any:
    request = GenerationRequest.model_validate({"seed": 7, "num_inference_steps": 3, **values})
    return services.generation.submit(request, visitor, again=True)


def drawn(services: Services, job: Any) -> str:
    """The hash of the pixels in the file of a job's picture."""
    assert isinstance(job.wait(PATIENCE_S), Finished)
    (made,) = services.gallery.of_job(job.id)
    with Image.open(services.gallery.path(made)) as image:
        return pixels_sha256(image)


@pytest.fixture
def with_adapters(settings: Settings) -> Settings:
    settings.adapters_dir.mkdir(parents=True)
    for scale, name in enumerate(("Moons", "Suns"), 1):
        adapter_file(settings.adapters_dir / f"{name}.safetensors", scale=scale / 2)
    return settings


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [KINDS[:4], pytest.param(KINDS, marks=pytest.mark.full)], ids=["quick", "full"])
def test_each_picture_in_line_is_that_of_a_studio_that_draws_nothing_else(
    with_adapters: Settings, services: Services, tmp_path: Path, score: Score, kinds: tuple[dict[str, Any], ...]
) -> None:
    """Two people ask in turn; every kind of picture follows every other one once."""
    alone: dict[int, str] = {}
    for number, values in enumerate(kinds):
        with open_services(with_adapters.model_copy(update={"data_dir": fresh(tmp_path / f"{number}")})) as other:
            alone[number] = drawn(other, asked(other, values))
    assert len(set(alone.values())) == len(kinds)
    order = [kind for pair in itertools.permutations(range(len(kinds)), 2) for kind in pair]
    jobs = [(kind, asked(services, kinds[kind], f"visitor {place % 2}")) for place, kind in enumerate(order)]
    assert [drawn(services, job) for _, job in jobs] == [alone[kind] for kind, _ in jobs]
    score(inputs=len(order))


def fresh(data: Path) -> Path:
    (data / "adapters").mkdir(parents=True)
    for scale, name in enumerate(("Moons", "Suns"), 1):
        adapter_file(data / "adapters" / f"{name}.safetensors", scale=scale / 2)
    return data


RECIPE: dict[str, Any] = {"prompt": "a red star", "negative_prompt": "blue", "num_inference_steps": 4, "seed": 7,
                          "guidance_scale": 3.0, "scheduler": "dpmpp_2m_karras", "width": 128,
                          "height": 128}  # fmt: skip


def test_one_seed_is_one_picture_through_every_door(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, score: Score
) -> None:
    holder, doors = EngineHolder(lambda: engine), {}
    with open_services(settings, engine=holder) as services:
        doors["page"] = drawn(services, asked(services, RECIPE))
        (made,) = services.generate(**RECIPE, again=True)
        doors["library"] = hash_of(services.gallery.path(made).read_bytes())
        with closing(httpx.Client(timeout=60)) as client, served(all_routes(services)) as url:
            doors |= {f"{name} over HTTP": hash_of(file) for name, file in over_http(client, url)}
    with open_services(settings.model_copy(update={"data_dir": settings.data_dir / "new"})) as again:
        doors["after a restart, with an engine of its own"] = drawn(again, asked(again, RECIPE))
        doors["as the second of two"] = second(again)
    monkeypatch.setenv("FLASH_STUDIO_DATA_DIR", str(settings.data_dir / "cli"))
    monkeypatch.setenv("FLASH_STUDIO_OFFLINE", "1")
    flags = ["--negative", "blue", "--steps", "4", "--seed", "7", "--guidance", "3", "--sampler", "dpmpp_2m_karras"]
    assert main(["generate", RECIPE["prompt"], *flags], holder) == 0
    (file,) = (settings.data_dir / "cli" / "images").rglob("*.png")
    doors["command line"] = hash_of(file.read_bytes())
    assert len(doors) == 8 and len(set(doors.values())) == 1, doors
    score(inputs=len(doors))


def second(services: Services) -> str:
    job = asked(services, {**RECIPE, "seed": 6, "num_images": 2})
    assert isinstance(job.wait(PATIENCE_S), Finished)
    made = services.gallery.of_job(job.id)[1]
    return hash_of(services.gallery.path(made).read_bytes())


def hash_of(file: bytes) -> str:
    with Image.open(io.BytesIO(file)) as image:
        return pixels_sha256(image)


def over_http(client: httpx.Client, url: str) -> Iterator[tuple[str, bytes]]:
    """The same picture by our own interface, OpenAI's and A1111's. Before each, what was drawn is deleted, so that
    none of them answers with a picture that is there."""
    usual = {name: RECIPE[name] for name in ("prompt", "negative_prompt", "seed", "width", "height")}
    job = client.post(f"{url}/api/v1/jobs", json={"kind": "generate", **RECIPE}).json()
    while (told := client.get(f"{url}/api/v1/jobs/{job['id']}").json())["state"] in ("queued", "running"):
        pass
    yield "our own", client.get(url + told["pictures"][0]["url"]).content
    ours = {"prompt": "a red star", "negative_prompt": "blue", "seed": 7, "steps": 4, "guidance_scale": 3.0,
            "scheduler": "dpmpp_2m_karras", "size": "128x128", "response_format": "b64_json"}  # fmt: skip
    answer = client.post(f"{url}/v1/images/generations", json=ours)
    yield "OpenAI's", base64.b64decode(answer.json()["data"][0]["b64_json"])
    theirs = {**usual, "steps": 4, "cfg_scale": 3, "sampler_name": "DPM++ 2M", "scheduler": "Karras"}
    answer = client.post(f"{url}/sdapi/v1/txt2img", json=theirs)
    yield "A1111's", base64.b64decode(answer.json()["images"][0])


LEARN: dict[str, Any] = {
    "folder": str(PROJECT_ROOT / "examples" / "crescents"), "num_steps": 10, "batch_size": 2, "rank": 2,
    "look_every": 10, "num_prior": 0, "trigger": "sks",
}  # fmt: skip


def learning(name: str) -> TrainingRequest:
    return parse_training({**LEARN, "name": name})


def learnt(run: Run[TrainingPlan]) -> dict[str, torch.Tensor]:
    """The numbers of its adapter. The losses that are told are means since the last word, which comes as it may."""
    return load_file(run.folder / EXPORTS["kohya"])


@pytest.mark.slow
@pytest.mark.full
def test_a_training_that_is_drawn_beside_learns_what_it_learns_alone(services: Services, score: Score) -> None:
    """Trainings come one after the other and hold while a picture is drawn; a picture is that of a studio at rest."""
    at_rest = drawn(services, asked(services, {"prompt": "a red circle"}))
    alone = services.training.submit(learning("Alone"))
    first = services.training.job_of(alone)
    assert first is not None and isinstance(first.wait(PATIENCE_S), Finished)
    runs = [services.training.submit(learning(name)) for name in ("Beside", "After")]
    first, second = (services.training.job_of(run) for run in runs)
    assert first is not None and second is not None
    drawings: list[str] = []
    for _ in range(4):
        time.sleep(1)  # so that it gets on in between: it holds for as long as somebody draws
        drawings.append(drawn(services, asked(services, {"prompt": "a red circle"})))
        assert first.is_over or services.runner.row(second.id).state == "queued", "two trainings at once"
        first.refresh()
    assert isinstance(first.wait(PATIENCE_S), Finished)
    assert isinstance(second.wait(PATIENCE_S), Finished)
    assert drawings and set(drawings) == {at_rest}
    weights = learnt(services.training.run_of(alone.id))
    for run in runs:
        again = learnt(services.training.run_of(run.id))
        assert weights.keys() == again.keys() and all(torch.equal(weights[key], again[key]) for key in weights)
    score(inputs=len(drawings), faults=2, survived=2)
