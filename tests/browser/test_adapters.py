"""Adapters on the page: dropped as a file, clicked into the prompt, seen in the picture; looked into and changed."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import Open, Server, serious
from tests.browser.test_generate import generate, make, wait_for_result
from tests.studio.adapter_files import adapter_file

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")

Page = Any
PROMPT = "a red circle on a white background"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"> ${document.title='owned'} {{value}}"


def open_adapters(page: Page) -> None:
    page.click("#adapters > button.label-wrap")
    page.wait_for_selector("#adapter-search textarea, #adapter-search input", state="visible")


def test_a_file_becomes_a_card_and_a_click_draws_with_it(page: Page, server: Server, tmp_path: Path) -> None:
    before = server.pictures
    make(page, PROMPT, seed=3)
    open_adapters(page)
    page.set_input_files("#adapter-file input[type=file]", adapter_file(tmp_path / "ink.safetensors"))
    card = page.locator("#adapter-cards .card", has_text="ink")
    sync_api.expect(card).to_have_attribute("aria-pressed", "false")
    card.click()
    prompt = page.locator("#prompt textarea")
    sync_api.expect(prompt).to_have_value(f"{PROMPT} <lora:ink:1>")
    sync_api.expect(card).to_have_attribute("aria-pressed", "true")
    generate(page, f"{PROMPT} <lora:ink:1>", seed=3)
    page.wait_for_selector("#strip li:nth-child(2)")
    wait_for_result(page)
    drawn = [path for path in server.pictures if path not in before]
    assert len(drawn) == 2
    pictures = [Image.open(path).convert("RGB").tobytes() for path in drawn]
    assert pictures[0] != pictures[1]
    card.click()
    sync_api.expect(prompt).to_have_value(PROMPT)


def test_a_file_that_is_no_adapter_says_why_beside_it(page: Page, tmp_path: Path) -> None:
    (tmp_path / "evil.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    open_adapters(page)
    page.set_input_files("#adapter-file input[type=file]", tmp_path / "evil.safetensors")
    sync_api.expect(page.locator("#adapter-note [role=alert]")).to_contain_text("pickle")


def test_an_unknown_name_is_told_next_to_the_prompt(open_page: Open) -> None:
    page = open_page(width=390)
    page.fill("#prompt textarea", "a red star <lora:nobody:1>")
    page.click("#generate")
    sync_api.expect(page.locator("#prompt-error [role=alert]")).to_contain_text("no adapter called 'nobody'")


def test_an_adapter_is_looked_into_changed_and_removed(page: Page, server: Server, axe: str, tmp_path: Path) -> None:
    make(page, PROMPT, seed=5)
    open_adapters(page)
    metadata = {"comment": HOSTILE, "modelspec.trigger_phrase": "brushes"}
    path = adapter_file(tmp_path / "wash.safetensors", scale=0.5, metadata=metadata)
    page.set_input_files("#adapter-file input[type=file]", path)
    card = page.locator("#adapter-cards .card")
    card.filter(has_text="wash").click()
    prompt = page.locator("#prompt textarea")
    sync_api.expect(prompt).to_have_value(f"{PROMPT}, brushes <lora:wash:1>")

    page.click("#adapter-details > button.label-wrap")
    choose(page, "wash")
    facts = page.locator("#adapter-facts")
    for text in ("It can be used with Pocket SD 1.5.", "1 module, by 3 tensors", "brushes"):
        sync_api.expect(facts).to_contain_text(text)
    facts.locator("summary").click()
    sync_api.expect(facts.locator("details")).to_contain_text(HOSTILE)
    assert facts.locator("img").count() == 0 and page.title() != "owned"

    page.click("#adapter-change > button.label-wrap")
    page.fill("#adapter-title textarea, #adapter-title input", "Wet wash")
    page.click("#adapter-save")
    sync_api.expect(page.locator("#adapter-changed")).to_contain_text("Saved.")
    page.click("#adapter-use-shown")
    sync_api.expect(facts.locator("img[src*='adapters/wash/preview']")).to_be_visible()
    sync_api.expect(card.filter(has_text="Wet wash").locator("img")).to_be_visible()
    page.mouse.move(0, 0)
    assert serious(page, axe) == []

    page.fill("#adapter-name textarea, #adapter-name input", "rinse")
    page.click("#adapter-rename")
    sync_api.expect(prompt).to_have_value(f"{PROMPT}, brushes <lora:rinse:1>")
    sync_api.expect(card.filter(has_text="Wet wash")).to_have_attribute("aria-pressed", "true")
    page.click("#adapter-remove")
    sync_api.expect(page.locator("#adapter-confirm")).to_contain_text("Remove “Wet wash” and its file for good?")
    assert (server.data_dir / "adapters" / "rinse.safetensors").exists()
    page.click("#adapter-remove-yes")
    sync_api.expect(card.filter(has_text="Wet wash")).to_have_count(0)
    sync_api.expect(prompt).to_have_value(f"{PROMPT}, brushes")
    sync_api.expect(page.locator("#adapter-change")).to_be_hidden()
    assert not list((server.data_dir / "adapters").glob("*rinse*"))


def test_two_adapters_become_one_that_draws(page: Page, server: Server, axe: str, tmp_path: Path) -> None:
    make(page, PROMPT, seed=9)
    open_adapters(page)
    for name, scale in (("north", 0.7), ("south", 0.3)):
        path = adapter_file(tmp_path / f"{name}.safetensors", scale=scale)
        page.set_input_files("#adapter-file input[type=file]", path)
        sync_api.expect(page.locator("#adapter-note")).to_contain_text(f"{name} is in the list")
    page.click("#adapter-merge > button.label-wrap")
    page.click("#merge-start")
    sync_api.expect(page.locator("#merge-name-error [role=alert]")).to_contain_text("has no name")
    for number, name in enumerate(("north", "south"), start=1):
        page.click(f"#merge-adapter-{number} input")
        page.click(f"#merge-adapter-{number} [role=option]:has-text('{name}')")
    sync_api.expect(page.locator("#merge-adapter-3")).to_be_visible()
    page.fill("#merge-weight-2 input", "0.5")
    page.fill("#merge-name textarea, #merge-name input", "Both ways")
    assert serious(page, axe) == []
    page.click("#merge-start")
    sync_api.expect(page.locator("#prompt textarea")).to_have_value(f"{PROMPT} <lora:Both ways:1>")
    sync_api.expect(page.locator("#adapter-note")).to_contain_text("south is in the list")
    card = page.locator("#adapter-cards .card", has_text="Both ways")
    sync_api.expect(card).to_have_attribute("aria-pressed", "true")
    sync_api.expect(page.locator("#adapter-facts")).to_contain_text("north × 1, south × 0.5")
    generate(page, f"{PROMPT} <lora:Both ways:1>", seed=9)
    page.wait_for_selector("#strip li:nth-child(2)")
    wait_for_result(page)
    pictures = [Image.open(path).convert("RGB").tobytes() for path in server.pictures if "-9-" in path.name]
    assert len(pictures) == 2 and pictures[0] != pictures[1]


def choose(page: Page, title: str) -> None:
    page.wait_for_selector("#adapter-facts dl")
    page.click("#adapter-choice input")
    with page.expect_response("**/run/**") as answer:  # it fills the controls: what is typed before would go
        page.click(f"#adapter-choice [role=option]:has-text('{title}')")
    answer.value.finished()
