"""An adapter worked into the chosen model, on the page: by its owner only, and at once among the models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.services import Services
from tabs.adapter_into_model import AdapterIntoModel
from tabs.adapters import build_adapters
from tests.studio.adapter_files import adapter_file


@pytest.fixture
def section(services: Services, tmp_path: Path) -> AdapterIntoModel:
    services.adapters.store.add(adapter_file(tmp_path / "ink.safetensors"))
    return built(services)


def built(services: Services) -> AdapterIntoModel:
    with gr.Blocks():
        return build_adapters(services, gr.Textbox(), gr.Dropdown()).details.into_model


def press(section: AdapterIntoModel, adapter: str | None = "ink", scale: Any = 0.5, name: str = "Mine") -> Any:
    """Press the button; what comes at once, and at the end."""
    values = {section.picked_id: adapter, section.model: "pocket-sd15", section.lora_scale: scale, section.name: name}
    first, *_, last = section.on_merge(values)
    assert not first[section.button].interactive and last[section.button].interactive
    return last


def test_the_new_model_is_told_and_can_be_chosen(section: AdapterIntoModel) -> None:
    said = press(section)
    assert "Mine is in the list of models: SD 1.5; it predicts noise." in said[section.note]
    assert said[section.model].choices[-1] == ("Mine", "Mine")
    assert section.services.catalogue.checkpoint("Mine").note.startswith("Pocket SD 1.5 with ink × 0.5")


@pytest.mark.parametrize(
    ("given", "field", "sentence"),
    [
        ({"name": " "}, "name", "has no name"),
        ({"scale": 5}, "lora_scale", "from -4 to 4"),
        ({"scale": None}, "lora_scale", "no such scale"),
        ({"scale": 0}, "lora_scale", "would be the old one"),
        ({"adapter": None}, "merge", "No adapter is chosen."),
        ({"adapter": "nobody"}, "merge", "no adapter called"),
    ],
)
def test_what_is_wrong_stands_beside_its_control(
    section: AdapterIntoModel, given: dict[str, Any], field: str, sentence: str
) -> None:
    said = press(section, **given)
    assert sentence in said[section.errors[field]]
    assert [name for name, slot in section.errors.items() if said[slot]] == [field]
    assert section.model not in said and not section.services.settings.models_dir.exists()


def test_a_guest_makes_none(services: Services, section: AdapterIntoModel) -> None:
    theirs = built(replace(services, settings=services.settings.model_copy(update={"share": True})))
    assert "Only the owner of this machine" in press(theirs)[theirs.errors["merge"]]
    assert not services.settings.models_dir.exists()
