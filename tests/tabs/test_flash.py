"""The Flash tab: what is asked becomes a job of this visitor, what is there is shown, and nobody else sees it."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import gradio as gr
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from studio.flash import comparison_of
from studio.gallery import NewImage
from studio.services import Services
from studio.web.access import new_token, visitor_of
from studio.web.page_routes import page_routes
from tabs.flash import FlashTab, build_flash
from tabs.visitor import build_browser_state


@pytest.fixture
def tab(services: Services) -> FlashTab:
    with gr.Blocks():
        return build_flash(services, build_browser_state("visitor"))


def asked(tab: FlashTab, token: Any, **values: Any) -> dict:
    given = {
        "prompts": "a fox\n\n a hare ",
        "checkpoint": "sd15",
        "steps": [4, 2],
        "seed": 5,
        "num_images": 1,
        **values,
    }
    given = {"has_baseline": True, "baseline_steps": 30, "baseline_guidance": 7.5, "decoder": "full", **given}
    return {**{component: given.get(name) for name, component in tab.form.fields.items()}, tab.token: token}


@pytest.fixture
def drawn(tab: FlashTab) -> Callable[[str, int], str]:
    """Makes a comparison of the bearer of `token`, of whose pictures so many are there; gives its id."""

    def make(token: str, count: int) -> str:
        job_id = tab.on_compare(asked(tab, token))[tab.job]
        for cell in comparison_of(tab.services.runner.job(job_id)).cells()[:count]:
            seconds = {"text": 0.1, "denoise": float(cell.column.evaluations), "decode": 0.2, "total": 0.3}
            new = NewImage(
                job_id=job_id, visitor=visitor_of(token), image_index=cell.index, recipe=cell.recipe,
                prompt_as_run=cell.recipe.prompt, negative_as_run="", environment={}, seconds=seconds,
                peak_memory_mb=1.0,
            )  # fmt: skip
            tab.services.gallery.save(Image.new("RGB", (16, 16), (40 * cell.index, 90, 10)), new)
        return job_id

    return make


def test_what_is_asked_becomes_a_job_of_this_visitor(tab: FlashTab) -> None:
    token = new_token()
    updates = tab.on_compare(asked(tab, token))
    job = tab.services.runner.job(updates[tab.job])
    comparison = comparison_of(job)
    assert job.visitor == visitor_of(token)
    assert comparison.prompts == ("a fox", "a hare")
    assert [column.name for column in comparison.columns] == ["baseline", "s2", "s4"]
    assert updates[tab.stop].interactive is True
    assert "Next in line" in json.loads(updates[tab.matrix])["line"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prompts": " \n "}, "There is no prompt."),
        ({"steps": []}, "No number of steps is chosen."),
        ({"seed": -7}, "Seed is -7"),
    ],
)
def test_what_cannot_be_is_said_and_starts_nothing(tab: FlashTab, values: dict[str, Any], said: str) -> None:
    token = new_token()
    updates = tab.on_compare(asked(tab, token, **values))
    assert said in updates[tab.error] and tab.job not in updates
    assert tab.services.runner.active(visitor_of(token)) == []


def test_pictures_appear_as_they_come_with_what_each_way_takes(tab: FlashTab, drawn: Callable[[str, int], str]) -> None:
    token = new_token()
    job_id = drawn(token, 4)
    shown = tab.show(job_id, token)
    matrix = json.loads(shown[tab.matrix])
    titles = [column["title"] for column in matrix["columns"]]
    assert titles == ["Baseline: 30 steps, guidance 7.5", "2 steps", "4 steps"]
    assert [[cell is not None for cell in row["cells"]] for row in matrix["rows"]] == [[True] * 3, [True, False, False]]
    assert matrix["rows"][1]["title"] == "a hare · seed 5"
    assert "<td>60</td><td>2</td><td>4</td>" in shown[tab.figures]
    assert shown[tab.download].link == f"comparisons/{job_id}.zip"


def test_nobody_else_sees_or_stops_it(tab: FlashTab, drawn: Callable[[str, int], str]) -> None:
    mine, other = new_token(), new_token()
    job_id = drawn(mine, 2)
    assert json.loads(tab.show(job_id, other)[tab.matrix])["rows"] == []
    tab.on_stop(job_id, other)
    assert not tab.services.runner.job(job_id).is_over
    tab.on_stop(job_id, mine)
    ended = tab.show(job_id, mine)
    assert "Stopped" in json.loads(ended[tab.matrix])["line"]
    assert ended[tab.stop].interactive is False


@pytest.mark.parametrize("kept", [None, "", "gone", 7, {"a": 1}])
def test_what_a_browser_kept_of_another_studio_shows_the_empty_tab(tab: FlashTab, kept: Any) -> None:
    updates = tab.on_load(kept, new_token())
    assert "side by side" in json.loads(updates[tab.matrix])["empty"]
    assert updates[tab.stop].interactive is False


def test_another_model_brings_its_accelerators(tab: FlashTab) -> None:
    updates = tab.on_model("sdxl", "lcm-sd15")
    assert [value for _, value in updates[tab.form["accelerator"]].choices] == ["flash-sdxl", "lcm-sdxl", "hyper-sdxl"]
    assert updates[tab.form["baseline_guidance"]] == 6.0


def test_all_files_come_in_one(tab: FlashTab, drawn: Callable[[str, int], str]) -> None:
    job_id = drawn(new_token(), 6)
    client = TestClient(Starlette(routes=page_routes(tab.services)))
    answer = client.get(f"/comparisons/{job_id}.zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = archive.namelist()
    assert "baseline/image_i1_seed5.png" in names and "compare_baseline30_flash4_seed5.png" in names
    assert client.get("/comparisons/gone.zip").status_code == 404
