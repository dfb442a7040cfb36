"""Adapters on the page: found by a word, in and out of the prompt by a click, added by their owner only."""

import json
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from studio.services import Services
from tabs.adapters import EMPTY, NOTHING_FOUND, AdapterPanel, build_adapters
from tests.studio.test_adapters import adapter_file


@pytest.fixture
def panel(services: Services) -> AdapterPanel:
    with gr.Blocks():
        return build_adapters(services)


@pytest.fixture
def ink(services: Services, tmp_path: Path) -> str:
    entry = services.adapters.store.add(adapter_file(tmp_path / "ink.safetensors")).entry
    services.adapters.store.update(entry.id, {"trigger_words": ("inkwash",), "lora_scale": 0.8})
    return entry.id


def cards(panel: AdapterPanel, word: str = "", prompt: str = "", model: str = "pocket-sd15") -> list[dict[str, object]]:
    return json.loads(panel.on_show(word, prompt, model))["cards"]


def test_an_empty_list_teaches(panel: AdapterPanel) -> None:
    assert json.loads(panel.on_show("", "", None))["empty"] == EMPTY


def test_adapters_are_found_by_name_and_trigger_word(panel: AdapterPanel, ink: str) -> None:
    assert [card["id"] for card in cards(panel, "INK")] == [card["id"] for card in cards(panel, "wash")] == ["ink"]
    assert json.loads(panel.on_show("oil", "", None)) == {
        "label": json.loads(panel.on_show("", "", None))["label"],
        "empty": NOTHING_FOUND,
        "cards": [],
    }


def test_a_click_puts_the_tag_into_the_prompt_and_the_next_takes_it_out(panel: AdapterPanel, ink: str) -> None:
    event = SimpleNamespace(id=ink)
    prompt = panel.on_pick("a red star", event)  # type: ignore[arg-type]
    assert prompt == "a red star, inkwash <lora:ink:0.8>"
    assert cards(panel, prompt=prompt)[0]["is_on"]
    assert panel.on_pick(prompt, event) == "a red star, inkwash"  # type: ignore[arg-type]
    assert panel.on_pick("", event) == "inkwash <lora:ink:0.8>"  # type: ignore[arg-type]


def test_one_for_another_family_says_so_and_cannot_be_chosen(
    panel: AdapterPanel, services: Services, tmp_path: Path
) -> None:
    services.adapters.store.add(adapter_file(tmp_path / "large.safetensors", width=2048))
    (card,) = cards(panel)
    assert not card["is_usable"] and card["note"] == "Not for Pocket SD 1.5"


def test_only_the_owner_of_the_machine_adds_files(panel: AdapterPanel, tmp_path: Path, services: Services) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    updates = panel.on_add(str(tmp_path / "bad.safetensors"))
    assert "no .safetensors file" in updates[panel.note]
    path = str(adapter_file(tmp_path / "ink.safetensors"))
    assert "is in the list" in panel.on_add(path)[panel.note]
    shared = AdapterPanel(**{**vars(panel), "services": SimpleNamespace(
        settings=services.settings.model_copy(update={"share": True}), adapters=services.adapters
    )})  # fmt: skip
    services.adapters.store.remove("ink")
    shared.on_add(path)
    assert services.adapters.store.entries() == ()
