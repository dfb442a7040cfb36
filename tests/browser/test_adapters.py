"""Adapters on the page: dropped as a file, clicked into the prompt, seen in the picture."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import Open, Server
from tests.browser.test_generate import generate, make, wait_for_result
from tests.studio.test_adapters import adapter_file

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")

Page = Any
PROMPT = "a red circle on a white background"


def open_adapters(page: Page) -> None:
    page.click("#adapters button.label-wrap")
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
