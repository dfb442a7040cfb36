"""Adapters merged on the page: by their owner only, what is wrong beside its control, the new one at hand at once."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch

from lora_registry.formats import read_adapter
from lora_registry.unfitted import load_unfitted
from studio.domain.merging import MERGE_KEY, MERGE_METHODS
from studio.services import Services
from tabs.adapter_merge import MAX_PORTIONS
from tabs.adapters import AdapterPanel, build_adapters
from tests.studio.adapter_files import adapter_file


@pytest.fixture
def panel(services: Services, tmp_path: Path) -> Iterator[AdapterPanel]:
    """Over two adapters of one module: `ink`, and `gold` whose weights are half of them."""
    for name, scale in (("ink", 1.0), ("gold", 0.5)):
        services.adapters.store.add(adapter_file(tmp_path / f"{name}.safetensors", scale=scale))
    services.adapters.store.update("ink", {"trigger_words": ("inkwash",)})
    with gr.Blocks():
        yield build_adapters(services, gr.Textbox(), gr.Dropdown())


def press(panel: AdapterPanel, *portions: tuple[str, Any], prompt: str = "", **typed: Any) -> dict[Any, Any]:
    """Press Merge; controls that are not `typed` stay as the page builds them."""
    merging, details = panel.merging, panel.details
    data: dict[Any, Any] = {field: getattr(field, "value", None) for field in merging.fields.values()}
    data |= {merging.fields[name]: value for name, value in typed.items()}
    chosen = [*portions, *[(None, 1)] * (MAX_PORTIONS - len(portions))]
    for (adapter, weight), choice, number in zip(chosen, merging.adapters, merging.weights, strict=True):
        data |= {choice: adapter, number: weight}
    *_, last = panel.on_merge({**data, details.change.prompt: prompt, details.model: "pocket-sd15"})
    return last


def change(panel: AdapterPanel, adapter_id: str) -> torch.Tensor:
    weights = load_unfitted(read_adapter(panel.services.adapters.store.path(adapter_id))).weights
    return next(iter(weights["unet"].values())).product()


def test_the_new_adapter_is_listed_looked_into_and_in_the_prompt_in_place_of_its_parts(panel: AdapterPanel) -> None:
    prompt = "a star <lora:ink:0.8> at night <lora:other>"
    said = press(panel, ("ink", 0.8), ("gold", 0.5), prompt=prompt, name="Ink and gold")
    expected = 0.8 * change(panel, "ink") + 0.5 * change(panel, "gold")
    assert torch.allclose(change(panel, "Ink and gold"), expected, atol=2e-3 * float(expected.abs().max()))
    assert said[panel.details.change.prompt] == "a star at night <lora:other>, inkwash <lora:Ink and gold:1>"
    assert said[panel.details.choice].value == said[panel.details.change.picked_id] == "Ink and gold"
    assert "It can be used with Pocket SD 1.5." in said[panel.details.facts]
    assert "ink × 0.8, gold × 0.5" in said[panel.details.facts]
    assert "is in the list" in said[panel.merging.note] and said[panel.merging.button].interactive
    listed = panel.on_list("", said[panel.details.change.prompt], "pocket-sd15")
    cards = json.loads(listed[panel.cards])["cards"]
    assert {card["id"]: card["is_on"] for card in cards} == {"gold": False, "ink": False, "Ink and gold": True}
    assert ("Ink and gold", "Ink and gold") in listed[panel.merging.adapters[0]].choices


def test_only_one_press_counts_while_it_is_being_done(panel: AdapterPanel) -> None:
    first = next(iter(panel.on_merge({})))
    assert not first[panel.merging.button].interactive and "Merging" in first[panel.merging.note]


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_every_way_says_what_it_does_and_shows_what_it_has_a_use_for(panel: AdapterPanel, method: Any) -> None:
    fields = panel.merging.fields
    shown = panel.merging.on_method(method)
    assert MERGE_METHODS[method][1:] in shown[fields["method"]].info
    # A value of a control that is out of sight is left out: the request would refuse it.
    typed = {"method": method, "rank": 2, "density": 0.7, "majority_sign": "frequency", "seed": 4}
    press(panel, ("ink", 1), ("gold", 1), name="new", **typed)
    entry = panel.services.adapters.store.get("new")
    assert entry.adapter is not None
    told = json.loads(entry.adapter.metadata[MERGE_KEY])
    used = {name for name in ("rank", "density") if shown[fields[name]].visible}
    assert told["method"] == method and {name: told.get(name) for name in ("rank", "density")} == {
        name: typed[name] if name in used else None for name in ("rank", "density")
    }


@pytest.mark.parametrize(
    ("portions", "typed", "field", "sentence"),
    [
        ([("ink", 1)], {"name": "a"}, "portions", "Name at least two"),
        ([("ink", 9), ("gold", 1)], {"name": "a"}, "portions", "a weight from -4 to 4"),
        ([("ink", None), ("gold", 1)], {"name": "a"}, "portions", "has no weight"),
        ([("ink", 0), ("gold", 0)], {"name": "a"}, "portions", "would change nothing"),
        ([("ink", 1), ("nobody", 1)], {"name": "a"}, "portions", "no adapter called"),
        ([("ink", 1), ("gold", 1)], {"name": "  "}, "name", "has no name"),
        ([("ink", 1), ("gold", 1)], {"name": "a", "rank": -1}, "rank", "from 1 to 1024"),
        ([("ink", 1), ("gold", 1)], {"name": "a", "method": "ties", "density": 2}, "density", "up to 1"),
        ([("ink", 1), ("gold", 1)], {"name": "a", "method": "dare_ties", "seed": -1}, "seed", "whole number"),
        ([("ink", 1), ("gold", 1)], {"name": "a", "method": "mean"}, "method", "There are svd"),
    ],
)
def test_what_is_wrong_stands_beside_its_control(
    panel: AdapterPanel, portions: list[tuple[str, Any]], typed: dict[str, Any], field: str, sentence: str
) -> None:
    said = press(panel, *portions, **typed)
    assert sentence in said[panel.merging.errors[field]]
    assert [name for name, slot in panel.merging.errors.items() if said[slot]] == [field]
    assert said[panel.merging.button].interactive and panel.details.change.prompt not in said
    assert {entry.id for entry in panel.services.adapters.store.entries()} == {"ink", "gold"}


def test_adapters_of_two_families_are_refused_beside_them(panel: AdapterPanel, tmp_path: Path) -> None:
    panel.services.adapters.store.add(adapter_file(tmp_path / "old.safetensors", width=768))
    panel.services.adapters.store.add(adapter_file(tmp_path / "large.safetensors", width=2048))
    said = press(panel, ("old", 1), ("large", 1), name="a")
    assert "different families" in said[panel.merging.errors["portions"]]


def test_a_guest_merges_nothing(services: Services, panel: AdapterPanel) -> None:
    shared = replace(services, settings=services.settings.model_copy(update={"share": True}))
    with gr.Blocks():
        theirs = build_adapters(shared, gr.Textbox(), gr.Dropdown())
    assert not theirs.merging.frame.visible
    said = press(theirs, ("ink", 1), ("gold", 1), name="stolen")
    assert "Only the owner of this machine" in said[theirs.merging.errors["merge"]]
    assert {entry.id for entry in services.adapters.store.entries()} == {"ink", "gold"}
