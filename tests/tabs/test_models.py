"""A checkpoint of one's own, picked on the page: by its owner only, and at once among the models to choose from."""

from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
from gradio.routes import App
from starlette.testclient import TestClient

from studio.services import Services
from tabs import shell
from tabs.generate import GenerateTab
from tabs.models import ModelsPanel, build_models
from tests.engines.test_soundness import copy_of_pocket


@pytest.fixture
def panel(services: Services) -> ModelsPanel:
    with gr.Blocks():
        return build_models(services)


@pytest.mark.parametrize("quotes", ["{}", " {} ", '"{}"', "'{}'\n"])
def test_a_path_becomes_a_model_to_choose(panel: ModelsPanel, tab: GenerateTab, tmp_path: Path, quotes: str) -> None:
    folder = copy_of_pocket(tmp_path / "my <shapes>")
    updates = panel.on_add_model(quotes.format(folder))
    assert updates[panel.path] == ""
    assert "my -shapes is in the list of models: SD 1.5; it predicts noise." in updates[panel.note]
    (dropdown,) = tab.ask.models().values()
    assert dropdown.choices[-1] == ("my -shapes", "my -shapes")


@pytest.mark.parametrize("path", [None, "", "  ", "/nothing/here", "a\0b", "'", "x" * 300, "<img src=x>"])
def test_what_is_none_is_told_in_a_sentence_and_stays_to_be_mended(panel: ModelsPanel, path: str | None) -> None:
    updates = panel.on_add_model(path)
    assert "There is no file or folder at" in updates[panel.note] and "<img" not in updates[panel.note]
    assert panel.path not in updates
    assert panel.services.own_checkpoints.refresh() == ()
    assert not panel.services.settings.models_dir.exists()


def press_add(page: gr.Blocks, path: str) -> str:
    """Ask the page's own address, as anybody may who reaches it."""
    number = next(n for n, fn in page.fns.items() if getattr(fn.fn, "__name__", "") == "on_add_model")
    with TestClient(App.create_app(page)) as client:
        asked = {"fn_index": number, "data": [path], "session_hash": "anybody"}
        return client.post("/gradio_api/run/predict", json=asked).text


def test_only_the_owner_of_the_machine_adds_models(services: Services, tmp_path: Path) -> None:
    folder = str(copy_of_pocket(tmp_path / "mine"))
    page = shell.build(replace(services, settings=services.settings.model_copy(update={"share": True})))
    assert "on_add_model" not in {getattr(fn.fn, "__name__", "") for fn in page.fns.values()}
    (frame,) = (block for block in page.blocks.values() if block.elem_id == "add-model")
    assert not frame.visible
    assert "mine is in the list of models" in press_add(shell.build(services), folder)
