"""Every route of the page that is really up, asked as somebody without the password, as a visitor with things of their
own, as another visitor who knows what those are called, and on a page of one's own; docs/authorisation.md says with
what they come away."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from PIL import Image

from studio.domain.evaluation import parse_evaluation
from studio.domain.flash import parse_flash
from studio.domain.probe import parse_probe
from studio.domain.request import GenerationRequest
from studio.domain.run_events import Looked, line_of
from studio.domain.run_files import CHECKPOINTS, EVENTS, EXPORTS, SAMPLES, checkpoint_name, control_name
from studio.domain.run_grid import parse_grid
from studio.domain.training import parse_training
from studio.runs import Run
from studio.services import Services, open_services
from studio.settings import PROJECT_ROOT, Settings
from studio.web.access import new_token, visitor_of
from studio.web.gate import LOGIN
from tabs import shell
from tabs.launch import launch
from tests.studio.adapter_files import adapter_file
from tests.tabs.conftest import kept
from tests.tabs.pages import free_port

# Gradio asks pandas for an option that pandas 3 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.future.no_silent_downcasting:DeprecationWarning")

PASSWORD = "a password for guests"
OPEN = ("/health", "/health/ready", LOGIN, "/gradio_api/startup-events")
PAGE = PROJECT_ROOT / "docs" / "authorisation.md"
_ROW = re.compile(r"\| ([A-Z, ]+) \| (`.+`) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|")

CANARY = "a heart for canary 7f3a91"
FILES = ("/pictures/", "/comparisons/", "/evaluations/", "/probes/")

Statuses = dict[tuple[str, str], int]
"""By method and path."""


@dataclass(frozen=True)
class Studio:
    """One that is up, with things of the bearer of `token` in it."""

    services: Services
    page: gr.Blocks
    token: str
    names: dict[str, Callable[[], str]]
    """What stands for a part of a path: those of routes by the beginning of their path."""

    def walk(self, headers: dict[str, str]) -> tuple[Statuses, set[str]]:
        """With what each route answers to who sends `headers`, and those whose answer holds the visitor's prompt."""
        found: Statuses = {}
        leaks: set[str] = set()
        with httpx.Client(base_url=self.page.local_url, headers=headers, timeout=30) as client:
            for method, path in [("GET", LOGIN), *routes_of(self.page.app.routes)]:
                with client.stream(method, self._address(path), **_sent(method, path)) as answer:
                    found[method, path] = answer.status_code
                    if _ends(answer) and CANARY in answer.read().decode("latin-1"):
                        leaks.add(path)
        return found, leaks

    def _address(self, path: str) -> str:
        def name(part: re.Match[str]) -> str:
            known = self.names.get(part[1]) or self.names.get(f"{path.split('/')[1]} {part[1]}")
            return known() if known else "1"

        return re.sub(r"{(\w+)(?::\w+)?}", name, path)


def _ends(answer: httpx.Response) -> bool:
    """Whether all of it can be read: events go on for as long as one listens, and what broke is broken off."""
    return answer.status_code < 500 and not answer.headers.get("content-type", "").startswith("text/event-stream")


def routes_of(routes: Any) -> Iterator[tuple[str, str]]:
    """Method and path of everything that can be asked for; HEAD is as GET."""
    for route in routes:
        if router := getattr(route, "original_router", None):
            yield from routes_of(router.routes)
            continue
        methods = set(route.methods)
        for method in sorted(methods - {"HEAD"} if "GET" in methods else methods):
            yield method, route.path


def _sent(method: str, path: str) -> dict[str, Any]:
    """An empty object for what takes a body: who is let in is told what is missing. What Gradio turns off it tells only
    to those who ask rightly."""
    values = {"prompt": "x", "hash": "x", "code": "x"} if "vibe" in path else {}
    return {"json": values} if method in ("POST", "PUT", "PATCH") else {}


@contextmanager
def up(tmp_path: Path, **settings: Any) -> Iterator[Studio]:
    """A studio on the network whose workers stand still."""
    line = {"max_queued": 10_000, "max_queued_each": 10_000}
    with open_services(Settings(data_dir=tmp_path, offline=True, port=free_port(), **line, **settings)) as services:
        services.runner.stop(timeout=10)
        services.trainer.stop(timeout=10)
        token = new_token()
        names = things(services, token)
        page = shell.build(services)
        launch(page, services)
        try:
            yield Studio(services, page, token, names)
        finally:
            page.close()


def things(services: Services, token: str) -> dict[str, Callable[[], str]]:
    """One thing of each kind, of the bearer of `token`. A job is a new one each time: it may be stopped."""
    visitor = visitor_of(token)
    picture = kept(services, token, CANARY)
    flash = services.flash.submit(parse_flash({"prompts": [CANARY]}), visitor)
    run = trained(services)
    evaluation = services.evaluations.submit(
        parse_evaluation({"systems": [{}, {"num_inference_steps": 2}], "prompts": [{"text": CANARY}]}), visitor
    )
    probe = services.probes.submit(parse_probe({"prompt": CANARY}), visitor)
    services.settings.adapters_dir.mkdir(exist_ok=True)
    adapter_file(services.settings.adapters_dir / "Moons.safetensors")
    services.adapters.store.set_preview("Moons", (run.folder / SAMPLES / control_name(0)).read_bytes())
    return {
        "image_id": lambda: picture.id,
        "picture_id": lambda: picture.id,
        "comparisons job_id": lambda: flash.id,
        "api job_id": lambda: services.generation.submit(GenerationRequest(prompt=CANARY), visitor).id,
        "evaluation_id": lambda: evaluation.id,
        "evaluations name": lambda: "manifest.toml",
        "probe_id": lambda: probe.id,
        "probes name": lambda: "results.json",
        "adapter_id": lambda: "Moons",
        "run_id": lambda: run.id,
        "runs name": lambda: control_name(0),
        "layout": lambda: "kohya",
        "step": lambda: "20",
        "model": lambda: "pocket-sd15",
        "path_or_url": lambda: str(services.gallery.path(picture)),
        "gradio_api path": lambda: str(services.gallery.path(picture)),
    }


def trained(services: Services) -> Run[Any]:
    """A training that has left everything that one leaves."""
    folder = str(PROJECT_ROOT / "examples" / "crescents")
    run = services.training.submit(parse_training({"name": "Mine", "folder": folder, "num_steps": 60}))
    look = Looked(step=20, prompts=("a red sks",), right=1, checked=2)
    (run.folder / EVENTS).write_text(line_of(look))
    (run.folder / CHECKPOINTS).mkdir()
    adapter_file(run.folder / CHECKPOINTS / checkpoint_name(20))
    adapter_file(run.folder / EXPORTS["kohya"])
    (run.folder / SAMPLES).mkdir()
    grid = services.run_grids.submit(parse_grid({"run": run.id, "prompts": ["a red sks"]}))
    for path in (run.folder / SAMPLES / control_name(0), grid.folder.sheet):
        Image.new("RGB", (8, 8), "red").save(path)
    return run


def told() -> dict[tuple[str, str], tuple[int, ...]]:
    """The tables of the page but that of tools, which are off here (see test_mcp.py): statuses by method and path."""
    found: dict[tuple[str, str], tuple[int, ...]] = {}
    before, _, behind = PAGE.read_text(encoding="utf-8").partition("\n## Tools\n")
    for methods, paths, *statuses in _ROW.findall(before + behind.partition("\n## ")[2]):
        for method, path in product(methods.split(", "), re.findall("`(.+?)`", paths)):
            assert (method, path) not in found
            found[method, path] = tuple(map(int, statuses))
    return found


def test_every_route_answers_everybody_as_the_page_says(tmp_path: Path) -> None:
    bearer = {"Authorization": f"Bearer {PASSWORD}"}
    with up(tmp_path / "shared", mode="shared", password=PASSWORD) as shared:
        job = shared.services.runner.job(shared.names["api job_id"]())
        picture = shared.services.ledger.image(shared.names["image_id"]())
        nobody, told_nobody = shared.walk({})
        another, told_another = shared.walk({**bearer, "X-Flash-Visitor": new_token()})
        row = shared.services.runner.row(job.id)
        assert row.state == "queued" and not row.is_cancel_requested, "nobody stops another's job"
        assert shared.services.ledger.image(picture.id) == picture and shared.services.gallery.is_whole(picture)
        visitor, told_visitor = shared.walk({**bearer, "X-Flash-Visitor": shared.token})
        assert shared.services.runner.row(job.id).state == "cancelled", "its owner does: the API of A1111 names none"
        assert {key for key, status in nobody.items() if status != 401} == {("GET", path) for path in OPEN}
    assert told_nobody == set() and [path for path in told_another if not path.startswith(FILES)] == []
    assert told_visitor - told_another >= {"/api/v1/pictures", "/api/v1/pictures/{picture_id}"}
    with up(tmp_path / "own", mode="local") as own:
        owner, told_owner = own.walk({})
    assert told_owner == told_visitor
    measured = {key: (nobody[key], visitor[key], another[key], owner[key]) for key in nobody | owner}
    assert measured == told()
