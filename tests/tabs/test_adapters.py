"""Adapters on the page: found by a word, in and out of the prompt by a click, looked into; changed by their owner."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import gradio as gr
import pytest
from PIL import Image

from studio.domain.images import ImageRecord
from studio.services import Services
from tabs.adapter_change import AdapterChange
from tabs.adapter_facts import preview_url
from tabs.adapters import EMPTY, NOTHING_FOUND, AdapterPanel, build_adapters
from tests.studio.adapter_files import adapter_file

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture
def panel(services: Services) -> AdapterPanel:
    with gr.Blocks():
        return build_adapters(services, gr.Textbox(), gr.Dropdown())


@pytest.fixture
def change(panel: AdapterPanel) -> AdapterChange:
    return panel.details.change


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


def save(change: AdapterChange, adapter_id: str | None, **typed: Any) -> dict[Any, Any]:
    """Press Save with these values; every other control stays as it was filled."""
    entry = change.services.adapters.store.get(adapter_id) if adapter_id else None
    filled = change.fill(entry)
    data = {field: filled.get(field) for field in change.card.values()}
    data[change.card["title"]] = entry.card.title if entry else ""
    return change.on_save({change.picked_id: adapter_id, **data, **{change.card[k]: v for k, v in typed.items()}})


def test_everything_about_an_adapter_is_told(panel: AdapterPanel, services: Services, tmp_path: Path) -> None:
    metadata = {
        "ss_sd_model_name": "C:\\models\\base.ckpt",
        "modelspec.trigger_phrase": "inkwash",
        "made by": "somebody",
    }
    store = services.adapters.store
    store.add(adapter_file(tmp_path / "ink.safetensors", metadata=metadata))
    store.update("ink", {"notes": "for mountains"})
    updates = panel.details.on_open(None, "pocket-sd15")
    digest = store.inspect("ink").adapter
    assert (
        digest is not None and updates[panel.details.choice].value == updates[panel.details.change.picked_id] == "ink"
    )
    told = updates[panel.details.facts]
    rows = ("base.ckpt", "LoRA", "UNet", "1 module, by 3 tensors", "inkwash", "kohya", "ink.safetensors", "somebody")
    for text in (*rows, "for mountains", str(digest.tensor_sha256), f"<dd>{digest.short_hash}"):
        assert text in told
    assert "<dt>Rank</dt><dd>2 " in told and "<dt>Alpha</dt><dd>2 (alpha ÷ rank is how strongly it acts: 1)" in told
    assert "It can be used with Pocket SD 1.5." in told


def test_the_verdict_is_about_the_model_that_is_chosen(panel: AdapterPanel, services: Services, tmp_path: Path) -> None:
    services.adapters.store.add(adapter_file(tmp_path / "large.safetensors", width=2048))
    assert "is made for SDXL; Pocket SD 1.5" in panel.details.on_choice("large", "pocket-sd15")[panel.details.facts]
    assert "It can be used with" in panel.details.on_model("large", "sdxl")


def test_a_broken_file_says_what_is_wrong_with_it(panel: AdapterPanel, ink: str, services: Services) -> None:
    services.adapters.store.path(ink).with_name("broken.safetensors").write_bytes(b"nothing")
    assert "no .safetensors file" in panel.details.on_choice("broken", None)[panel.details.facts]
    gone = panel.details.on_choice("nobody", None)
    assert "no adapter called" in gone[panel.details.facts] and gone[panel.details.change.picked_id] is None


def test_what_a_stranger_wrote_into_a_file_stays_text(
    panel: AdapterPanel, change: AdapterChange, services: Services, tmp_path: Path
) -> None:
    metadata = {HOSTILE: HOSTILE, "modelspec.title": HOSTILE, "modelspec.trigger_phrase": HOSTILE}
    store = services.adapters.store
    store.add(adapter_file(tmp_path / "ink.safetensors", metadata={**metadata, "ss_sd_model_name": HOSTILE}))
    store.set_preview("ink", b"\x89PNG\r\n\x1a\n")
    told = panel.details.on_open(None, None)[panel.details.facts] + change.on_ask("ink")[change.question]
    assert "&lt;script&gt;" in told and "&lt;img" in told
    assert "<script" not in told and "<img src=x" not in told


def test_the_owner_edits_the_card(change: AdapterChange, ink: str, services: Services) -> None:
    updates = save(change, ink, title="Ink wash", trigger_words="one, two words ,", notes="mine", lora_scale=0.6)
    card = services.adapters.store.get(ink).card
    assert (card.title, card.trigger_words, card.notes, card.lora_scale) == (
        "Ink wash",
        ("one", "two words"),
        "mine",
        0.6,
    )
    assert "Saved." in updates[change.note]
    save(change, ink, title=" ", trigger_words="", lora_scale=None)
    entry = services.adapters.store.get(ink)
    assert (entry.title, entry.trigger_words, entry.card.lora_scale) == ("ink", (), 1.0)


def test_words_that_nobody_typed_follow_the_file(change: AdapterChange, services: Services, tmp_path: Path) -> None:
    store = services.adapters.store
    store.add(adapter_file(tmp_path / "a.safetensors", metadata={"modelspec.trigger_phrase": "old, wash"}))
    save(change, "a", notes="mine")
    assert store.get("a").card.trigger_words is None
    save(change, "a", trigger_words="own")
    save(change, "a", trigger_words="old,wash")
    adapter_file(store.path("a"), metadata={"modelspec.trigger_phrase": "new"})
    assert store.get("a").trigger_words == ("new",)


@pytest.mark.parametrize(
    ("field", "value"),
    [("title", "x" * 201), ("trigger_words", "y" * 101), ("lora_scale", 99), ("notes", "z" * 10_001)],
)
def test_what_a_card_cannot_hold_is_told_beside_its_control(
    change: AdapterChange, ink: str, services: Services, field: str, value: object
) -> None:
    before = services.adapters.store.get(ink)
    updates = save(change, ink, **{field: value})
    assert "field-error" in updates[change.errors[field]]
    assert [slot for slot in change.errors.values() if updates[slot]] == [change.errors[field]]
    assert services.adapters.store.get(ink) == before


def test_another_name_is_also_that_in_the_prompt(change: AdapterChange, ink: str, services: Services) -> None:
    updates = change.on_rename(ink, "pen", "a star <lora:ink:0.5> at night <lora:other>")
    assert updates[change.prompt] == "a star at night <lora:other> <lora:pen:0.5>"
    assert (updates[change.picked_id], updates[change.name]) == ("pen", "pen")
    assert change.on_rename("pen", "quill", "a star")[change.prompt] == "a star"
    assert [entry.id for entry in services.adapters.store.entries()] == ["quill"]


def test_a_name_that_is_taken_or_empty_is_told_beside_it(
    change: AdapterChange, ink: str, services: Services, tmp_path: Path
) -> None:
    services.adapters.store.add(adapter_file(tmp_path / "oil.safetensors", width=768))
    assert "already" in change.on_rename(ink, "OIL", "")[change.errors["name"]]
    assert "no name" in change.on_rename(ink, "  ", "")[change.errors["name"]]
    assert [entry.id for entry in services.adapters.store.entries()] == ["ink", "oil"]


def test_the_picture_shown_becomes_the_preview_and_goes_again(
    panel: AdapterPanel, change: AdapterChange, ink: str, keep: Callable[[str], ImageRecord], tmp_path: Path
) -> None:
    assert "No picture is shown." in change.on_shown(ink, None)[change.errors["preview"]]
    assert cards(panel)[0]["image"] is None
    change.on_shown(ink, keep("local").id)
    first = cards(panel)[0]["image"]
    Image.new("RGB", (8, 8)).save(tmp_path / "other.webp")
    change.on_picture(ink, str(tmp_path / "other.webp"))
    second = cards(panel)[0]["image"]
    assert isinstance(first, str) and isinstance(second, str) and first != second  # a browser shows the new one
    assert f'src="{second}"' in panel.details.on_model(ink, None)
    refused = change.on_picture(ink, str(adapter_file(tmp_path / "no.png")))
    assert "no PNG, JPEG or WebP" in refused[change.errors["preview"]] and cards(panel)[0]["image"] == second
    change.on_drop_preview(ink)
    assert cards(panel)[0]["image"] is None


def test_any_name_can_have_a_preview() -> None:
    address = preview_url("a#b?c%/é", "1")
    assert address is not None
    assert unquote(urlsplit(address).path) == "adapters/a#b?c%/é/preview" and urlsplit(address).query == "v=1"


def test_removing_asks_first_and_leaves_no_tag(
    panel: AdapterPanel, change: AdapterChange, ink: str, services: Services
) -> None:
    asked = change.on_ask(ink)
    assert asked[change.confirm].visible and "“ink”" in asked[change.question]
    assert services.adapters.store.get(ink)
    updates = change.on_remove(ink, "a star <lora:ink:0.5>  at night")
    assert services.adapters.store.entries() == ()
    assert (updates[change.prompt], updates[change.picked_id]) == ("a star at night", None)
    assert not updates[change.frame].visible and not updates[change.confirm].visible
    after = panel.details.on_change(None, None)
    assert (after[panel.details.choice].choices, after[panel.details.facts]) == ([], "")
    assert "no adapter called" in change.on_remove(ink, "")[change.errors["remove"]]


def test_a_guest_may_look_but_change_nothing(
    panel: AdapterPanel,
    change: AdapterChange,
    services: Services,
    keep: Callable[[str], ImageRecord],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = services.adapters.store
    store.add(adapter_file(tmp_path / "ink.safetensors", metadata={"ss_train_data_dir": "/srv/me/photos"}))
    store.update("ink", {"notes": "private"})
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    services.adapters.set_preview("ink", tmp_path / "a.png")
    folder = store.path("ink").parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shown = keep("local").id
    monkeypatch.setenv("SPACE_ID", "someone/space")
    updates = panel.details.on_open(None, None)
    assert "<dt>Rank</dt>" in updates[panel.details.facts] and not updates[change.frame].visible
    assert "/srv/me" not in updates[panel.details.facts] and "private" not in updates[panel.details.facts]
    refused = [
        save(change, "ink", title="stolen"),
        change.on_rename("ink", "stolen", ""),
        change.on_shown("ink", shown),
        change.on_picture("ink", str(tmp_path / "a.png")),
        change.on_drop_preview("ink"),
        change.on_ask("ink"),
        change.on_remove("ink", ""),
    ]
    for said in refused:
        assert any("Only the owner of this machine" in said[slot] for slot in change.errors.values())
        assert change.prompt not in said
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
