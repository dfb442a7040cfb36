"""The panel that compares a run's checkpoints: opened for a run, filled in, drawn, chosen from, used."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from studio.domain.cells import CellResult
from studio.domain.run_events import Looked, line_of
from studio.domain.run_files import CHECKPOINTS, EVENTS, checkpoint_name
from studio.domain.training import TrainingPlan, parse_training
from studio.gallery import NewImage
from studio.run_grid import RunGrid
from studio.runs import Run
from studio.services import Services
from studio.settings import PROJECT_ROOT
from studio.web.access import new_token, visitor_of
from studio.web.page_routes import page_routes
from tabs.run_grid import RunGridPanel
from tabs.train import build_train
from tabs.visitor import build_browser_state
from tests.studio.adapter_files import adapter_file


@pytest.fixture
def panel(services: Services) -> RunGridPanel:
    services.trainer.stop(timeout=10)
    with gr.Blocks():
        return build_train(services, build_browser_state("visitor")).grid


@pytest.fixture
def run(services: Services, panel: RunGridPanel) -> Run[TrainingPlan]:
    """A run that was looked at twice and left something."""
    asked = {"name": "Mine", "folder": str(PROJECT_ROOT / "examples" / "crescents"), "num_steps": 60}
    run = services.training.submit(parse_training(asked))
    looks = [Looked(step=step, prompts=("a red sks", "a blue sks"), right=step, checked=50) for step in (10, 20)]
    (run.folder / EVENTS).write_text("".join(map(line_of, looks)))
    (run.folder / CHECKPOINTS).mkdir()
    for step in (10, 20):
        adapter_file(run.folder / CHECKPOINTS / checkpoint_name(step), scale=step / 100)
    left = services.training.use_checkpoint(run.id, 20)
    assert left == "Mine"
    return services.training.run_of(run.id)


def form(panel: RunGridPanel, run: Run[TrainingPlan], **values: Any) -> dict[Any, Any]:
    given = {
        "steps_of_run": [10, 20],
        "scales": [1],
        "prompts": "a red star\n\na blue star",
        "num_images": 2,
        "seed": 3,
        "num_ordinary": 0,
    }
    return {
        **{component: {**given, **values}[name] for name, component in panel.form.fields.items()},
        panel.run: run.id,
        panel.token: new_token(),
    }


def drawn(panel: RunGridPanel, run: Run[TrainingPlan]) -> RunGrid:
    """A grid of which the first prompt is drawn, by step 10 right, by step 20 wrong."""
    data = form(panel, run)
    panel.on_draw(data)
    grid = panel.services.run_grids.newest(run)
    assert grid is not None
    for cell in grid.grid.cells()[:6]:
        new = NewImage(
            job_id=grid.folder.job_id, visitor=visitor_of(data[panel.token]), image_index=cell.index,
            recipe=cell.recipe, prompt_as_run="a red star", negative_as_run="", environment={},
            seconds={"total": 1.0}, peak_memory_mb=1.0,
        )  # fmt: skip
        record = panel.services.gallery.save(Image.new("RGB", (16, 16), (cell.index, 0, 0)), new)
        grid.folder.note(CellResult(index=cell.index, image_id=record.id, right=cell.column.step == 10))
    return panel.services.run_grids.standing(grid)


def test_it_opens_with_what_the_run_has(panel: RunGridPanel, run: Run[TrainingPlan]) -> None:
    shown = panel.on_open(run.id)
    assert shown[panel.frame].visible is True and "2 checkpoints are kept" in shown[panel.told]
    steps = shown[panel.form["steps_of_run"]]
    assert steps.value == [10, 20] and ("20, best look", 20) in steps.choices
    assert shown[panel.form["prompts"]] == "a red sks\na blue sks"
    assert "5 columns, one without an adapter, of 20 pictures: 100 in all" in shown[panel.comes_to]
    assert panel.on_count(form(panel, run)).count("3 columns, one without an adapter, of 4 pictures: 12 in all") == 1
    assert panel.on_open("gone")[panel.frame].visible is False


def test_what_is_asked_is_drawn_by_the_ordinary_line(panel: RunGridPanel, run: Run[TrainingPlan]) -> None:
    shown = panel.on_draw(form(panel, run))
    matrix = json.loads(shown[panel.matrix])
    assert matrix["line"] == "Next in line …" and shown[panel.stop].interactive is True
    assert [column["title"] for column in matrix["columns"]] == ["Without it", "Step 10", "Step 20"]
    panel.on_stop(run.id)
    assert json.loads(panel.show(run, None)[panel.matrix])["line"].startswith("Stopped")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"steps_of_run": []}, "No checkpoint is chosen"),
        ({"scales": None}, "No scale is chosen"),
        ({"prompts": " "}, "no prompt"),
        ({"seed": -1}, "Seed is -1"),
    ],
)
def test_what_cannot_be_is_said(panel: RunGridPanel, run: Run[TrainingPlan], values: dict[str, Any], said: str) -> None:
    data = form(panel, run, **values)
    assert said in panel.on_draw(data)[panel.error] and said in panel.on_count(data)
    assert panel.services.run_grids.newest(run) is None


def test_scores_tell_which_is_best_and_a_click_chooses(panel: RunGridPanel, run: Run[TrainingPlan]) -> None:
    grid = drawn(panel, run)
    shown = panel.show(run, None)
    assert "Chosen: step 10 at scale 1." in shown[panel.chosen] and shown[panel.use].interactive is True
    assert "100 % [34–100 %]" in shown[panel.table] and "0 % [0–66 %]" in shown[panel.table]
    cells = json.loads(shown[panel.matrix])["rows"][0]["cells"]
    assert all(cells) and cells[2]["text"] == "Step 20 at scale 1, not drawn right: a red star"
    assert json.loads(shown[panel.matrix])["rows"][2]["cells"] == [None] * 3
    picked = panel.on_pick(run.id, SimpleNamespace(id=cells[2]["id"]))  # type: ignore[arg-type]
    assert "step 20" in picked[panel.chosen] and picked[panel.picked] == cells[2]["id"]
    without = panel.on_pick(run.id, SimpleNamespace(id="without"))  # type: ignore[arg-type]
    assert without[panel.use].interactive is False
    assert grid.job is not None
    grid.job.cancel()
    assert "Best is step 10 at scale 1" in panel.show(run, None)[panel.verdict]


def test_what_is_chosen_goes_into_the_prompt_in_place_of_what_the_run_left(
    panel: RunGridPanel, run: Run[TrainingPlan]
) -> None:
    drawn(panel, run)
    store = panel.services.adapters.store
    before = store.inspect("Mine").adapter
    assert panel.on_use(run.id, None, "a cat") == ("a red star <lora:Mine:1>", "pocket-sd15")
    after = store.inspect("Mine").adapter
    assert before and after and before.short_hash != after.short_hash
    assert [entry.id for entry in store.entries()] == ["Mine"]
    assert panel.on_use(run.id, "step-000020-x1/0", "a star <lora:Mine:0.4>")[0] == "a star <lora:Mine:1>"
    assert panel.on_use(run.id, "without", "a cat") == (gr.skip(), gr.skip())


def test_after_a_reload_the_last_grid_shows_and_another_run_has_none(
    panel: RunGridPanel, run: Run[TrainingPlan]
) -> None:
    assert panel.on_look(run.id, None, None)[panel.frame].visible is False, "nobody has opened it"
    drawn(panel, run)
    shown = panel.on_look(run.id, None, None)
    assert shown[panel.frame].visible is True and len(json.loads(shown[panel.matrix])["rows"]) == 4
    adapter_file(run.folder / CHECKPOINTS / checkpoint_name(30), scale=0.3)
    grown = panel.on_look(run.id, shown[panel.of], None)
    assert [step for _, step in grown[panel.form["steps_of_run"]].choices] == [10, 20, 30]
    other = panel.services.training.submit(
        parse_training({"name": "Other", "folder": run.plan.folder, "num_steps": 60})
    )
    closed = panel.on_look(other.id, shown[panel.of], None)
    assert closed[panel.frame].visible is False and closed[panel.open].visible is False


def test_its_sheet_is_served(panel: RunGridPanel, run: Run[TrainingPlan], tmp_path: Path) -> None:
    client = TestClient(Starlette(routes=page_routes(panel.services)))
    assert client.get(f"/runs/{run.id}/grid.png").status_code == 404
    grid = drawn(panel, run)
    Image.new("RGB", (8, 8)).save(grid.folder.sheet)
    assert client.get(f"/runs/{run.id}/grid.png").headers["content-type"] == "image/png"


def test_one_checkpoint_is_downloaded(panel: RunGridPanel, run: Run[TrainingPlan]) -> None:
    drawn(panel, run)
    assert panel.show(run, "without")[panel.file].visible is False
    link = panel.show(run, "step-000020-x1")[panel.file].link
    client = TestClient(Starlette(routes=page_routes(panel.services)))
    response = client.get(f"/{link}")
    assert response.content == run.checkpoints[20].read_bytes()
    assert response.headers["content-disposition"] == 'attachment; filename="Mine-step-20.safetensors"'
    assert client.get(f"/runs/{run.id}/checkpoints/7.safetensors").status_code == 404
