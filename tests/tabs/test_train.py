"""The tab in which adapters are trained: pictures are looked at, what is asked becomes a run, and a run shows."""

import json
import shutil
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from studio.domain.run_events import Looked, RunEvent, Trained, line_of
from studio.domain.run_files import EVENTS, SAMPLES, control_name, sample_name
from studio.domain.training import TrainingPlan
from studio.runs import Run
from studio.services import Services, open_services
from studio.settings import PROJECT_ROOT, Settings
from studio.web.access import new_token
from studio.web.page_routes import page_routes
from tabs import shell, train_views
from tabs.pictures import EXAMPLES
from tabs.train import TrainTab, build_train
from tabs.visitor import build_browser_state

CRESCENTS = PROJECT_ROOT / "examples" / "crescents"
TOLD: list[RunEvent] = [
    Looked(step=0, prompts=("a red sks",), right=2, checked=10, validation=0.09),
    *(Trained(step=step, total=60, loss=1 / step, step_s=0.5, rate=1e-3, images_s=8.0) for step in range(1, 31)),
    Looked(step=10, prompts=("a red sks",), right=9, checked=10, validation=0.03),
    Looked(step=20, prompts=("a red sks",), right=7, checked=10, validation=0.02),
]


@pytest.fixture
def tab(services: Services) -> TrainTab:
    services.trainer.stop(timeout=10)
    with gr.Blocks():
        return build_train(services, build_browser_state("visitor"))


def asked(tab: TrainTab, **values: Any) -> dict:
    given = {"name": "Mine", "checkpoint": "pocket-sd15", "preset": "fast", "folder": str(CRESCENTS), "num_steps": 60}
    fields = {component: {**given, **values}.get(name) for name, component in tab.form.fields.items()}
    return {**fields, tab.token: new_token()}


def told(tab: TrainTab, events: list[RunEvent] = TOLD) -> Run[TrainingPlan]:
    """A run that has got somewhere."""
    run = tab.found(tab.on_start(asked(tab))[tab.run])
    assert run is not None
    (run.folder / EVENTS).write_text("".join(map(line_of, events)))
    (run.folder / SAMPLES).mkdir()
    for name in (sample_name(20, 0, 0), control_name(0)):
        Image.new("RGB", (8, 8), "red").save(run.folder / SAMPLES / name)
    found = tab.found(run.id)
    assert found is not None
    return found


def test_what_is_asked_becomes_a_run_in_line(tab: TrainTab) -> None:
    updates = tab.on_start(asked(tab, trigger=" sks ", sample_prompts="a red sks\n\n a blue sks ", rank=4))
    run = tab.found(updates[tab.run])
    assert run is not None
    assert (run.plan.trigger, run.plan.rank, run.plan.num_pictures) == ("sks", 4, 16)
    assert run.plan.sample_prompts == ("a red sks", "a blue sks")
    assert updates[tab.error] == "" and updates[tab.stop].interactive is True
    assert "Next in line" in json.loads(updates[tab.samples])["line"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": ""}, "no name"),
        ({"folder": ""}, "nothing to learn from"),
        ({"folder": "/nowhere/at/all"}, "no folder"),
        ({"num_steps": 1}, "Steps is 1"),
        ({"checkpoint": "sd15", "num_prior": 20}, "no prompt for the pictures"),
    ],
)
def test_what_cannot_be_is_said_and_begins_nothing(tab: TrainTab, values: dict[str, Any], said: str) -> None:
    updates = tab.on_start(asked(tab, **values))
    assert said in updates[tab.error] and tab.run not in updates
    assert tab.services.training.runs.of() == ()


def test_the_plan_is_told_before_it_begins(tab: TrainTab) -> None:
    words = tab.on_plan(asked(tab, batch_size=8))[tab.plan]
    assert "16 pictures. Samples every " in words and "60 = 16 pictures × 30 times ÷ 8 a step" in words
    assert "the first steps tell" in words and "free on the CPU" in words and "up to " in words
    assert tab.on_plan(asked(tab, folder=""))[tab.plan] == ""
    assert "no folder" in tab.on_plan(asked(tab, folder="/nowhere/at/all"))[tab.plan]


def test_what_does_not_fit_is_refused_beside_the_button_before_it_is_pressed(tab: TrainTab) -> None:
    words = tab.on_plan(asked(tab, batch_size=256, size=2048))[tab.plan]
    assert "field-warning" in words and "It fits with " in words
    assert "It fits with " in tab.on_start(asked(tab, batch_size=256, size=2048))[tab.error]
    assert tab.services.training.runs.of() == ()


def test_model_and_preset_bring_their_own_numbers(tab: TrainTab) -> None:
    pocket = tab.on_usual(asked(tab, preset="balanced"))
    large = tab.on_usual(asked(tab, checkpoint="sd15", preset="high_quality"))
    rate, rank = tab.form["learning_rate"], tab.form["rank"]
    assert pocket[rate] > large[rate] and large[rank] == 32
    assert large[tab.form["num_steps"]] == 150 * 16, "more steps for more pictures"


def test_pictures_are_looked_at_and_their_captions_changed(tab: TrainTab, tmp_path: Path) -> None:
    panel = tab.pictures
    folder = tmp_path / "copy"
    shutil.copytree(CRESCENTS, folder)
    Image.new("RGB", (20, 20)).save(folder / "tiny.png")
    shown = panel.on_folder(str(folder))
    assert "17 pictures: 16 can be used" in shown[panel.told]
    table = shown[panel.table]
    verdicts = dict(zip(table["Picture"], table["Verdict"], strict=True))
    assert verdicts["0000.png"] == "good, 256×256" and verdicts["tiny.png"].startswith("Left out: tiny.png has 20×20")
    changed = panel.on_change(table, "SKS", "moon")[panel.table]
    assert "an orange moon on a mint background" in list(changed["Caption"])
    assert "sks" in (folder / "0000.txt").read_text(), "nothing is written before it is saved"
    panel.on_save(str(folder), changed)
    assert (folder / "0000.txt").read_text().strip() == "an orange moon on a mint background"


def test_uploads_become_a_folder_of_the_studios_own(tab: TrainTab, tmp_path: Path) -> None:
    panel = tab.pictures
    updates = panel.on_upload([str(path) for path in sorted(CRESCENTS.iterdir())])
    folder = Path(updates[panel.folder])
    assert folder.is_relative_to(tab.services.settings.datasets_dir) and "16 can be used" in updates[panel.told]
    archive = shutil.make_archive(str(tmp_path / "all"), "zip", CRESCENTS)
    assert "16 can be used" in panel.on_upload([archive])[panel.told]
    (tmp_path / "notes.txt").write_text("no picture")
    refused = panel.on_upload([str(tmp_path / "notes.txt")])
    assert "error" in refused[panel.told] and panel.folder not in refused


def test_every_example_can_be_learnt_from(tab: TrainTab) -> None:
    for title, (subject, folder) in EXAMPLES.items():
        updates = tab.pictures.on_example(title)
        assert updates[tab.pictures.folder] == str(folder) and updates[tab.pictures.subject] == subject
        assert "can be used" in updates[tab.pictures.told] and "corrupt" not in updates[tab.pictures.told]


def test_passing_over_the_examples_leaves_the_folder_as_it_was(tab: TrainTab) -> None:
    assert tab.pictures.on_example(None) == {tab.pictures.folder: gr.skip()}


def test_a_run_shows_its_samples_curves_and_best(tab: TrainTab) -> None:
    run = told(tab)
    shown = tab.show(run.id)
    samples = json.loads(shown[tab.samples])
    assert [column["title"] for column in samples["columns"]] == ["Without it", "Step 10", "Step 20"]
    assert samples["columns"][1]["note"] == "best, 9 of 10 drawn right, validation loss 0.0300"
    assert samples["rows"][0]["cells"][0]["thumb"] == f"runs/{run.id}/samples/control-0.png"
    assert "8.0 pictures a second" in shown[tab.pace]
    assert shown[tab.measures].title.startswith("Loss on pictures held out")
    tab.on_stop(run.id)
    ended = tab.show(run.id)
    assert json.loads(ended[tab.samples])["line"].startswith("Stopped at step 30 of 60. Kept: step 10, 9 of 10")
    assert ended[tab.go_on].visible is True and ended[tab.stop].interactive is False
    assert tab.on_go_on(run.id)[tab.stop].interactive is True


def test_of_many_looks_the_best_and_the_last_are_shown() -> None:
    looks = [Looked(step=step, right=10 if step == 40 else 1, checked=10) for step in range(0, 101, 10)]
    shown = train_views.shown_looks(looks, looks[4])
    assert len(shown) == 4 and {40, 100} <= {look.step for look in shown}
    assert train_views.shown_looks(looks[:3], None) == looks[1:3]


def test_the_loss_is_drawn_as_it_was_and_smoothed() -> None:
    trained = [Trained(step=step, total=9000, loss=float(step % 2), step_s=0.1) for step in range(1, 9001)]
    points = train_views.losses(trained[:100])
    raw = [loss for loss, line in zip(points["loss"], points["line"], strict=True) if line == "each"]
    smooth = [loss for loss, line in zip(points["loss"], points["line"], strict=True) if line == "smoothed"]
    assert set(raw) == {0.0, 1.0} and abs(smooth[-1] - 0.5) < 0.1
    assert len(train_views.losses(trained)["step"]) == 300


def test_what_was_learnt_is_called_by_a_prompt(tab: TrainTab) -> None:
    run = told(tab)
    assert tab.on_use(run.id, "a cat") == (gr.skip(), gr.skip())
    runs = tab.services.training.runs
    runs.keep(run, run.record.model_copy(update={"adapter_id": "mine"}))
    assert tab.on_use(run.id, "a cat") == ("a red sks <lora:mine:1>", "pocket-sd15")
    assert tab.on_use(run.id, "a star <lora:mine:1>")[0] == gr.skip()


@pytest.mark.parametrize("kept", [None, "", "gone", 7, {"a": 1}, "../x"])
def test_what_a_browser_kept_of_another_studio_shows_the_empty_tab(tab: TrainTab, kept: Any) -> None:
    updates = tab.on_load(kept)
    assert "appears here" in json.loads(updates[tab.samples])["empty"] and updates[tab.run] is None


def test_a_run_that_is_deleted_is_gone(tab: TrainTab) -> None:
    run = told(tab)
    assert "in line already" in tab.on_delete(run.id)[tab.error] and run.folder.is_dir()
    tab.on_stop(run.id)
    updates = tab.on_delete(run.id)
    assert updates[tab.run] is None and not run.folder.exists()


def test_samples_of_a_run_are_served(tab: TrainTab) -> None:
    run = told(tab)
    client = TestClient(Starlette(routes=page_routes(tab.services)))
    assert client.get(f"/runs/{run.id}/samples/{control_name(0)}").headers["content-type"] == "image/png"
    assert client.get(f"/runs/{run.id}/samples/plan.json").status_code == 404


def test_a_shared_page_has_no_training(tmp_path: Path) -> None:
    with open_services(Settings(data_dir=tmp_path, host="0.0.0.0")) as services:
        ids = [getattr(block, "elem_id", None) for block in shell.build(services).blocks.values()]
    assert "flash-compare" in ids and "train-start" not in ids
