"""The Evaluate tab: what is compared is a list, what comes of it fills in, and nobody else sees it."""

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
from studio.evaluation import Standing
from studio.evaluation_export import document
from studio.gallery import NewImage
from studio.services import Services
from studio.web.access import new_token, visitor_of
from studio.web.page_routes import page_routes
from tabs.evaluate import EvaluateTab, build_evaluate
from tabs.evaluate_systems import FEW, MODELS, as_asked, example, systems_of
from tabs.visitor import build_browser_state
from tests.studio.adapter_files import adapter_file

TOKEN = new_token()


@pytest.fixture
def tab(services: Services) -> EvaluateTab:
    with gr.Blocks():
        return build_evaluate(services, build_browser_state("visitor"), build_browser_state("systems"))


def form(tab: EvaluateTab, asked: Any, **values: Any) -> dict[Any, Any]:
    given = {"preset": "smoke", "prompt_set": "", "prompts": "", "seed": 0, **values}
    return {
        **{component: given.get(name) for name, component in tab.form.fields.items()},
        tab.systems.asked: asked,
        tab.token: TOKEN,
    }


def begun(tab: EvaluateTab, **values: Any) -> Standing:
    shown = tab.on_start(form(tab, example(FEW, tab.services), **values))
    assert shown[tab.error] == "", shown[tab.error]
    return tab.services.evaluations.standing(shown[tab.shown])


def draw(tab: EvaluateTab, standing: Standing, right: dict[str, bool], places: int = 8) -> None:
    """As if the first prompts were drawn: right by some systems."""
    for cell in standing.evaluation.cells:
        if cell.place >= places:
            continue
        new = NewImage(
            job_id=standing.id, visitor=visitor_of(TOKEN), image_index=cell.index, recipe=cell.recipe,
            prompt_as_run=cell.text, negative_as_run="", environment={}, seconds={"total": 1.0}, peak_memory_mb=1.0,
        )  # fmt: skip
        record = tab.services.gallery.save(Image.new("RGB", (16, 16), (cell.index, 0, 0)), new)
        told = right.get(cell.system.name, True)
        skills = {"colour": told}
        standing.folder.note(
            CellResult(index=cell.index, image_id=record.id, right=told, skills=skills, cosine=0.5, seconds=1.0)
        )


def names(value: str) -> list[str]:
    return [system["name"] for system in json.loads(value)["systems"]]


def test_an_example_waits_for_its_button(tab: EvaluateTab) -> None:
    shown = tab.on_load(None, None, TOKEN)
    assert names(shown[tab.systems.shown])[0] == "30 steps" and len(names(shown[tab.systems.shown])) == 4
    comes_to = tab.on_form(form(tab, shown[tab.systems.asked], preset="quick"))
    assert "272 pictures" in comes_to and "52 for 1" in comes_to and "fetched" not in comes_to
    assert json.loads(shown[tab.matrix])["rows"] == []


def test_a_trained_adapter_joins_the_example_with_its_control(tab: EvaluateTab) -> None:
    folder = tab.services.settings.adapters_dir
    folder.mkdir(exist_ok=True)
    adapter_file(folder / "mine.safetensors")
    shown = tab.on_load(None, None, TOKEN)
    systems = json.loads(shown[tab.systems.shown])["systems"]
    assert [system["name"] for system in systems][-1] == "mine × 1 · 30 steps"
    assert systems[0]["is_baseline"] and systems[0]["name"] == "no adapter · 30 steps", "it is its own control"


def test_systems_are_added_removed_and_become_the_baseline(tab: EvaluateTab) -> None:
    panel = tab.systems
    values = {
        "checkpoint": "pocket-sd15", "accelerator": "none", "num_inference_steps": 12, "guidance_scale": 4,
        "scheduler": "euler", "adapter": "", "lora_scale": 1, "trigger": "", "name": "",
    }  # fmt: skip
    data = {panel.form[name]: value for name, value in values.items()}
    added = panel.on_add({**data, panel.asked: example(MODELS, tab.services)})
    assert len(names(added[panel.shown])) == 4
    again = panel.on_add({**data, panel.asked: added[panel.asked]})
    assert "Two systems are the same" in again[panel.error] and panel.asked not in again
    last = names(added[panel.shown])[-1]
    chosen = panel.on_pick(added[panel.asked], SimpleNamespace(name=last, does="baseline"))  # type: ignore[arg-type]
    assert [each["is_baseline"] for each in json.loads(chosen[panel.shown])["systems"]] == [False] * 3 + [True]
    first = names(chosen[panel.shown])[0]
    left = panel.on_pick(chosen[panel.asked], SimpleNamespace(name=first, does="remove"))  # type: ignore[arg-type]
    rows = json.loads(left[panel.shown])["systems"]
    assert len(rows) == 3 and rows[-1]["is_baseline"], "the baseline stays who it is"
    gone = left[panel.asked]
    for _ in range(3):
        gone = panel.on_pick(gone, SimpleNamespace(name=panel._names(gone)[0], does="remove"))[panel.asked]  # type: ignore[arg-type]
    assert systems_of(gone) == [] and names(panel.show(gone)[panel.shown]) == []
    assert "no system" in tab.on_start(form(tab, gone))[tab.error]


@pytest.mark.parametrize("kept", [None, 5, {"systems": [{"steps": 1}]}, {"systems": "x"}, as_asked([])], ids=str)
def test_what_a_browser_kept_of_another_time_is_left_aside(tab: EvaluateTab, kept: Any) -> None:
    assert names(tab.on_load(kept, "gone", TOKEN)[tab.systems.shown])[0] == "30 steps"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prompt_set": "own", "prompts": " \n"}, "no prompt"),
        ({"seed": -4}, "seed must be"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said(tab: EvaluateTab, values: dict[str, Any], said: str) -> None:
    data = form(tab, example(FEW, tab.services), **values)
    assert said in tab.on_start(data)[tab.error] and said in tab.on_form(data)
    assert tab.services.evaluations.of() == []


def test_it_fills_in_with_the_verdict_first(tab: EvaluateTab) -> None:
    standing = begun(tab, preset="quick")
    bad = standing.evaluation.systems[-1].name
    draw(tab, standing, {bad: False}, places=8)
    shown = tab.show(standing.id, TOKEN, 0, "telling")
    assert f"{bad} (-100.0" in shown[tab.verdict] and "is worse than 30 steps" in shown[tab.verdict]
    assert "8 of 34 prompts" in shown[tab.table] and "worse" in shown[tab.table]
    assert "Speed and drawn right" in shown[tab.plots] and "<svg" in shown[tab.plots]
    matrix = json.loads(shown[tab.matrix])
    assert len(matrix["rows"]) == 12, "six prompts with two pictures each"
    assert [cell["note"] for cell in matrix["rows"][0]["cells"]] == ["✓ 50.0"] * 3 + ["✗ 50.0"]
    assert shown[tab.stop].interactive is True and shown[tab.go_on].visible is False
    tab.on_stop(standing.id, TOKEN)
    stopped = tab.show(standing.id, TOKEN, 0, "order")
    assert stopped[tab.go_on].visible is True and json.loads(stopped[tab.matrix])["line"].startswith("Stopped")


def test_pages_turn_and_a_picture_is_laid_over_the_baselines(tab: EvaluateTab) -> None:
    standing = begun(tab)
    draw(tab, standing, {})
    shown = tab.on_turn(1)(standing.id, TOKEN, 0, "order")
    assert shown[tab.page] == 1 and "Prompts 7–8 of 8" in shown[tab.page_line]
    assert shown[tab.forth].interactive is False and shown[tab.back].interactive is True
    cell = json.loads(shown[tab.matrix])["rows"][0]["cells"][2]
    picked = tab.on_pick(standing.id, TOKEN, SimpleNamespace(id=cell["id"]))  # type: ignore[arg-type]
    under, over = picked[tab.slider].value
    assert under is not None and over is not None and "Everything as asked" in picked[tab.facts]
    assert picked[tab.picked] == cell["id"] and picked[tab.send].visible is True
    again = tab.on_choose(standing.id, TOKEN, "order")
    assert again[tab.picked] is None and again[tab.send].visible is False


def test_results_are_opened_again(tab: EvaluateTab, tmp_path: Path) -> None:
    standing = begun(tab)
    draw(tab, standing, {})
    standing.job.cancel()
    pictures = tab.services.evaluations.pictures(standing)
    file = tmp_path / "results.json"
    file.write_text(document(tab.services.evaluations.standing(standing.id).findings, pictures), encoding="utf-8")
    shown = tab.on_take_in(str(file), TOKEN)
    assert shown[tab.shown] != standing.id and shown[tab.error] == "" and "8 of 8 prompts" in shown[tab.table]
    assert shown[tab.go_on].visible is False and json.loads(shown[tab.matrix])["line"].startswith("Done: 32 pictures")
    assert shown[tab.earlier].value == shown[tab.shown] and len(shown[tab.earlier].choices) == 2
    file.write_text("nothing", encoding="utf-8")
    assert "no evaluation of this studio" in tab.on_take_in(str(file), TOKEN)[tab.error]


def test_exports_are_served_and_name_nothing_else(tab: EvaluateTab) -> None:
    standing = begun(tab)
    draw(tab, standing, {})
    client = TestClient(Starlette(routes=page_routes(tab.services)))
    for name, kind in (
        ("report.html", "html"),
        ("images.csv", "csv"),
        ("results.json", "json"),
        ("manifest.toml", "toml"),
    ):
        answer = client.get(f"/evaluations/{standing.id}/{name}")
        assert answer.status_code == 200 and kind in answer.headers["content-type"]
        assert answer.headers["content-disposition"].startswith("attachment")
    assert client.get(f"/evaluations/{standing.id}/evaluation.json").status_code == 404
    assert client.get("/evaluations/gone/report.html").status_code == 404


def test_guests_see_only_their_own_and_draw_no_more_than_is_fair(
    tab: EvaluateTab, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing = begun(tab)
    draw(tab, standing, {})
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    assert tab.show(standing.id, TOKEN, 0, "order")[tab.table]
    other = tab.show(standing.id, new_token(), 0, "order")
    assert other[tab.table] == "" and json.loads(other[tab.matrix])["rows"] == []
    assert tab._earlier(None, new_token()).choices == []
    large = form(tab, example(FEW, tab.services), preset="standard")
    assert "guests may have 300" in tab.on_start(large)[tab.error]


def test_a_sweep_of_the_baseline_fills_a_grid(tab: EvaluateTab) -> None:
    values = {"x_field": "num_inference_steps", "x_values": "2-6 (+2)", "y_field": "guidance_scale", "y_values": "1, 3"}
    data = form(tab, example(FEW, tab.services), **values)
    assert "6 systems × 8 prompts × 1: 48 pictures" in tab.on_form(data)
    shown = tab.on_start(data)
    standing = tab.services.evaluations.standing(shown[tab.shown])
    assert {system.recipe.accelerator for system in standing.evaluation.systems} == {"none"}, "the others are left out"
    draw(tab, standing, {"2 steps · guidance 1": False})
    shown = tab.show(standing.id, TOKEN, 3, "order")
    matrix = json.loads(shown[tab.matrix])
    assert [column["title"] for column in matrix["columns"]] == ["Steps 2", "Steps 4", "Steps 6"]
    assert len(matrix["rows"]) == 2 and all(cell for row in matrix["rows"] for cell in row["cells"])
    assert "Guidance scale 3" in matrix["rows"][1]["title"] and "Prompt 4 of 8" in shown[tab.page_line]
    assert "Best by drawn right is" in shown[tab.table] and shown[tab.exports["sweep.html"]].visible is True
    client = TestClient(Starlette(routes=page_routes(tab.services)))
    page = client.get(f"/evaluations/{standing.id}/sweep.html").text
    assert page.count("data:image/webp") == 48
    bad = form(tab, example(FEW, tab.services), x_field="guidance_scale", x_values="high")
    assert "it takes numbers" in tab.on_start(bad)[tab.error]
