"""X2 over HTTP: whatever is sent to any address, the answer is no error of ours and comes soon."""

import base64
import json
import random
import string
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from engines.base import Engine
from studio.generation import EngineHolder
from studio.services import Services, open_services
from studio.settings import Settings
from studio.web.access import VISITOR_HEADER
from studio.web.own.api import OPERATIONS
from studio.web.own.asking import BODIES
from studio.web.routes import all_routes
from tests.reliability.conftest import Score
from tests.reliability.mutations import PICTURE, changed, prompt, value
from tests.reliability.test_fuzz import LONGEST_S, SEED, tiers

FULL_LINE, NO_ROOM = 503, 507
JSON = {"Content-Type": "application/json"}
OPENAI = {
    "prompt": "a red circle", "model": "pocket-sd15", "n": 1, "size": "128x128", "quality": "high", "style": "vivid",
    "background": "auto", "response_format": "b64_json", "output_format": "png", "output_compression": 80, "seed": 3,
    "stream": False, "partial_images": 0, "steps": 4, "guidance_scale": 5, "scheduler": "euler", "user": "x",
}  # fmt: skip
A1111 = {
    "prompt": "a red circle", "negative_prompt": "", "styles": [], "seed": 3, "sampler_name": "Euler a",
    "batch_size": 1, "scheduler": "Karras", "n_iter": 1, "steps": 4, "cfg_scale": 5, "width": 128, "height": 128,
    "tiling": False, "override_settings": {"sd_model_checkpoint": "pocket-sd15"}, "alwayson_scripts": {},
    "infotext": "", "eta": None, "enable_hr": False, "hr_scale": 2, "hr_upscaler": "Lanczos", "denoising_strength": 0.5,
    "script_name": "",
}  # fmt: skip
FOLDERS = ("folder", "pictures", "captions", "regularisation", "manifest", "preserve", "masks")
"""What names places of this machine: those are read, however large they are."""


def own_bodies() -> dict[str, list[str]]:
    return {
        kind: [name for name in body.model_fields if name not in FOLDERS]
        for body in BODIES
        if (kind := body.model_fields["kind"].annotation.__args__[0]) and body.__name__ != "ManifestJob"
    }


OWN = own_bodies()
USUAL = {"generate": {"prompt": "a red circle"}, "flash": {"prompts": ["a red circle"]}, "evaluate": {"systems": [{}]}}


@pytest.fixture(scope="module", params=["local", "shared"])
def client(
    request: pytest.FixtureRequest, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, Services]]:
    """Every route that is served beside the page, over a studio where nothing is drawn."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), offline=True, share=request.param == "shared")
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        services.runner.stop(30)
        services.trainer.stop(30)
        with TestClient(Starlette(routes=all_routes(services)), headers={VISITOR_HEADER: "v" * 24}) as client:
            yield client, services


def body_of(rng: random.Random, usual: dict[str, Any], names: list[str]) -> bytes:
    """A body that would do, with some fields that would not; a tenth are spoilt as bytes."""
    fields = {**usual, **{name: value(rng) for name in rng.sample(names, k=min(len(names), rng.randrange(5)))}}
    if rng.random() < 0.1:
        fields["".join(rng.choices(string.ascii_lowercase, k=5))] = value(rng)
    data = json.dumps(fields).encode()
    return changed(rng, data) if rng.random() < 0.1 else data


def own(rng: random.Random) -> tuple[str, str, dict[str, Any]]:
    kind = rng.choice(list(OWN))
    usual = USUAL.get(kind, {"name": "x", "folder": "nowhere"}) | {"kind": kind}
    return "POST", "/api/v1/jobs", {"content": body_of(rng, usual, OWN[kind]), "headers": JSON}


def openai(rng: random.Random) -> tuple[str, str, dict[str, Any]]:
    if rng.random() < 0.7:
        return "POST", "/v1/images/generations", {"content": body_of(rng, OPENAI, list(OPENAI)), "headers": JSON}
    sent = changed(rng, base64.b64decode(PICTURE))
    form = {"prompt": "x", "n": f"{value(rng)}"[:50].encode("utf-8", "replace").decode()}
    return "POST", "/v1/images/edits", {"files": {"image": ("a.png", sent, "image/png")}, "data": form}


def a1111(rng: random.Random) -> tuple[str, str, dict[str, Any]]:
    name = rng.choice(("txt2img", "img2img", "img2img", "options", "png-info", "interrupt"))
    usual = A1111 | (
        {"init_images": [PICTURE], "mask": None, "mask_blur": 4, "resize_mode": 1} if "img2" in name else {}
    )
    usual = {"image": f"data:image/png;base64,{PICTURE}"} if name == "png-info" else usual
    return "POST", f"/sdapi/v1/{name}", {"content": body_of(rng, usual, list(usual)), "headers": JSON}


def looked_at(rng: random.Random, paths: list[str]) -> tuple[str, str, dict[str, Any]]:
    """Any address by any method, its parameters any text."""
    parts = rng.choice(paths).split("/")
    words = (
        "..",
        "%2e%2e%2f",
        "%00",
        "x" * 300,
        "0" * 48,
        "-1",
        "é",
        "studio.db",
        "%ed%a0%80",
        prompt(rng)[:30] or "x",
    )
    path = "/".join(rng.choice(words) if "{" in part else part for part in parts)
    names = ("search", "limit", "offset", "seed", "starred", "checkpoint", "previews", "download", "x")
    query = {rng.choice(names): f"{value(rng)}"[:100] for _ in range(rng.randrange(3))}
    headers = {"Last-Event-ID": rng.choice(("-1", "9" * 30, "x"))} if rng.random() < 0.2 else {}
    method = rng.choice(("GET", "GET", "GET", "POST", "DELETE", "PUT", "OPTIONS", "HEAD"))
    query = {name: text.encode("utf-8", "replace").decode() for name, text in query.items()}
    return method, quote(path.encode("utf-8", "replace"), safe="/%"), {"params": query, "headers": headers}


def refuse_broken_answer(answer: Any, told: str) -> None:
    assert answer.status_code < 500 or answer.status_code in (FULL_LINE, NO_ROOM), (told, answer.text[:500])
    is_final = answer.headers.get("x-should-retry") == "false" or told.endswith("/health/ready")  # nobody works here
    if answer.status_code in (429, FULL_LINE) and not is_final:
        assert int(answer.headers.get("retry-after", 0)) >= 1, (told, answer.text[:500])


@pytest.mark.slow
@pytest.mark.usefixtures("swept_heap")
@tiers(250, 1_500, 10_000)
def test_whatever_is_sent_is_answered(client: tuple[TestClient, Services], score: Score, count: int) -> None:
    asking, services = client
    paths = [route.path for route in all_routes(services) if isinstance(route, Route)]
    assert len(paths) > len(OPERATIONS)
    statuses: set[int] = set()
    for n in range(count):
        told = f"random.Random('{SEED} http {n}')"
        rng = random.Random(f"{SEED} http {n}")
        make = rng.choice((own, own, openai, a1111, lambda rng: looked_at(rng, paths)))
        method, path, given = make(rng)
        began = time.process_time()
        answer = asking.request(method, path, follow_redirects=False, **given)
        assert time.process_time() - began < LONGEST_S, told
        refuse_broken_answer(answer, f"{told} {method} {path}")
        statuses.add(answer.status_code)
        for row in services.ledger.active_jobs(None):
            services.ledger.request_cancel(row.id)
    score(inputs=count)
    assert {202, 404, 405, 422} <= statuses
