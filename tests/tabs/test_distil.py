"""The panel in which accelerators are made: what is asked becomes a run, and a run shows as it stands."""

import json
import os
import time
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from studio.domain.events import Progress
from studio.domain.run_events import Looked, RunEvent, Trained, line_of
from studio.domain.run_files import EVENTS, EXPORTS, SAMPLES, sample_name, teacher_name
from studio.runs import Run
from studio.services import Services, open_services
from studio.settings import Settings
from studio.web.access import new_token
from studio.web.page_routes import page_routes
from tabs import run_views, shell
from tabs.distil import DistilPanel, build_distil
from tabs.flash import build_flash
from tabs.visitor import build_browser_state

TOLD: list[RunEvent] = [
    Looked(step=0, prompts=("a red star",), right=2, checked=10, distance=0.9),
    *(Trained(step=step, total=20, loss=1 / step, step_s=0.5) for step in range(1, 13)),
    Looked(step=10, prompts=("a red star",), right=9, checked=10, distance=0.3),
]


@pytest.fixture
def panel(services: Services) -> DistilPanel:
    services.trainer.stop(timeout=10)
    with gr.Blocks():
        return build_distil(services, build_flash(services, build_browser_state("visitor")))


def asked(panel: DistilPanel, **values: Any) -> dict:
    given = {"name": "Mine", "checkpoint": "pocket-sd15", "objective": "lcm", "num_steps": 20, **values}
    fields = {component: given.get(name) for name, component in panel.form.fields.items()}
    return {**fields, panel.flash.token: new_token()}


def told(panel: DistilPanel, events: list[RunEvent] = TOLD) -> Run:
    """A run that has got somewhere."""
    run = panel.found(panel.on_start(asked(panel))[panel.run])
    assert run is not None
    (run.folder / EVENTS).write_text("".join(map(line_of, events)))
    (run.folder / SAMPLES).mkdir()
    for name in (sample_name(10, 2, 0), teacher_name(0)):
        Image.new("RGB", (8, 8), "red").save(run.folder / SAMPLES / name)
    (run.folder / EXPORTS["kohya"]).write_bytes(b"adapter")
    found = panel.found(run.id)
    assert found is not None
    return found


def test_what_is_asked_becomes_a_run_in_line(panel: DistilPanel) -> None:
    updates = panel.on_start(asked(panel, captions="a fox\n\n a hare ", guidance_scale=4))
    run = panel.found(updates[panel.run])
    assert run is not None
    assert (run.plan.source, run.plan.captions, run.plan.guidance_scale) == ("captions", ("a fox", "a hare"), 4.0)
    assert updates[panel.error] == "" and updates[panel.stop].interactive is True
    assert "Next in line" in json.loads(updates[panel.samples])["line"]


def test_a_data_set_of_the_hub_is_named_by_its_id(panel: DistilPanel) -> None:
    updates = panel.on_start(asked(panel, dataset=" owner/set ", num_pictures=12))
    run = panel.found(updates[panel.run])
    assert run is not None
    assert (run.plan.source, run.plan.dataset, run.plan.num_pictures) == ("hub", "owner/set", 12)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": ""}, "no name"),
        ({"num_steps": 1}, "Steps is 1"),
        ({"folder": "/nowhere/at/all"}, "no folder"),
        ({"checkpoint": "sd15"}, "nothing to teach"),
        ({"dataset": "cats"}, "no id of a data set"),
        ({"dataset": "owner/cats", "captions": "a fox"}, "Both a data set of the hub and captions"),
    ],
)
def test_what_cannot_be_is_said_and_begins_nothing(panel: DistilPanel, values: dict[str, Any], said: str) -> None:
    updates = panel.on_start(asked(panel, **values))
    assert said in updates[panel.error] and panel.run not in updates
    assert panel.services.distillation.runs.of() == ()


def test_another_model_brings_its_own_numbers(panel: DistilPanel) -> None:
    pocket, large = panel.on_model("pocket-sd15"), panel.on_model("sd15")
    rate = panel.form["learning_rate"]
    assert pocket[rate] > large[rate] and large[panel.form["rank"]] == 64


def test_a_run_shows_its_samples_curves_and_best(panel: DistilPanel) -> None:
    run = told(panel)
    shown = panel.show(run.id, "")
    samples = json.loads(shown[panel.samples])
    assert [column["title"] for column in samples["columns"]] == ["2 steps", "4 steps", "8 steps", "The teacher"]
    assert samples["columns"][0]["note"] == "after 10 steps of training"
    assert samples["rows"][0]["cells"][0]["thumb"] == f"runs/{run.id}/samples/000010-s2-0.png"
    assert [value for _, value in shown[panel.shown].choices] == ["", "10", "0"]
    assert len(shown[panel.losses].value["data"]) == 12
    earlier = json.loads(panel.show(run.id, "0")[panel.samples])
    assert earlier["columns"][0]["note"] == "untrained"
    panel.on_stop(run.id)
    ended = panel.show(run.id, "")
    assert json.loads(ended[panel.samples])["line"] == (
        "Stopped at step 12 of 20. Kept: step 10, 9 of 10 drawn right in four steps."
    )
    assert ended[panel.go_on].visible is True and ended[panel.stop].interactive is False
    again = panel.on_go_on(run.id)
    assert again[panel.stop].interactive is True
    assert "in line already" in panel.on_go_on(run.id)[panel.error]


def test_long_trainings_are_drawn_with_few_points() -> None:
    many = [Trained(step=step, total=9000, loss=float(step), step_s=0.1) for step in range(1, 9001)]
    points = run_views.losses(many)
    assert len(points["step"]) == 150 and points["step"][-1] == 9000
    assert points["loss"][0] == pytest.approx(30.5)


@pytest.mark.parametrize("kept", [None, "", "gone", 7, {"a": 1}, "../x"])
def test_what_a_browser_kept_of_another_studio_shows_the_empty_panel(panel: DistilPanel, kept: Any) -> None:
    updates = panel.on_load(kept, None)
    assert "appears here" in json.loads(updates[panel.samples])["empty"]
    assert updates[panel.run] is None


def test_a_run_that_is_deleted_is_gone_and_the_next_one_shows(panel: DistilPanel) -> None:
    older, newer = told(panel), told(panel)
    refused = panel.on_delete(newer.id)
    assert "in line already" in refused[panel.error] and newer.folder.is_dir()
    assert panel.on_choose(older.id)[panel.confirm].visible is False, "the question was about another run"
    for run in (older, newer):
        panel.on_stop(run.id)
    updates = panel.on_delete(newer.id)
    assert updates[panel.run] == older.id and not newer.folder.exists() and older.folder.is_dir()
    assert updates[panel.delete].visible
    updates = panel.on_delete(older.id)
    assert updates[panel.run] is None and updates[panel.losses]["visible"] is False
    assert "no such training run" in panel.on_delete(older.id)[panel.error]


def test_a_run_that_tells_nothing_for_long_is_pointed_out(panel: DistilPanel) -> None:
    run = told(panel)
    running = [
        Progress(
            index=0, job_id="j", time=0.0, step=12, total=20, image_index=0, num_images=1, eta_s=4.0, phase="train"
        )
    ]
    assert run_views.standing(run, running)[0].startswith("Step 12 of 20")
    long_ago = time.time() - 1000
    os.utime(run.folder / EVENTS, (long_ago, long_ago))
    line, _ = run_views.standing(run, running)
    assert line.startswith("Nothing heard of step 13 of 20 for 16 min") and "stop it and go on" in line
    assert run_views.silence_s([Trained(step=1, total=2, loss=1, step_s=60)]) == 18_000


def test_files_of_a_run_are_served_and_nothing_else_of_its_folder(panel: DistilPanel) -> None:
    run = told(panel)
    client = TestClient(Starlette(routes=page_routes(panel.services)))
    assert client.get(f"/runs/{run.id}/samples/{sample_name(10, 2, 0)}").headers["content-type"] == "image/png"
    assert client.get(f"/runs/{run.id}/kohya.safetensors").content == b"adapter"
    for path in (
        "samples/000010-s2-9.png",
        "samples/plan.json",
        "samples/..%2fplan.json",
        "peft.safetensors",
        "x.safetensors",
    ):
        assert client.get(f"/runs/{run.id}/{path}").status_code == 404
    assert client.get("/runs/gone/samples/teacher-0.png").status_code == 404


def test_a_shared_page_has_no_training(tmp_path: Path) -> None:
    with open_services(Settings(data_dir=tmp_path, host="0.0.0.0")) as services:
        ids = [getattr(block, "elem_id", None) for block in shell.build(services).blocks.values()]
    assert "flash-compare" in ids and "distil-start" not in ids
