"""Enhance in a browser: seen before it is used, kept with the picture, taken back, found again."""

from pathlib import Path
from typing import Any

import pytest

from engines.pocket.grammar import parse
from engines.pocket.world import render
from studio.domain.images import ImageRecord
from studio.metadata import read_record
from tests.browser.conftest import Open, Server, wait_until_ready

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")

Page = Any
DONE = ".stage[data-phase=done] .stage-open img[src^='pictures/']"


def newest(server: Server) -> ImageRecord:
    path = max(server.pictures, key=lambda each: each.stat().st_mtime_ns)
    record = read_record(path, path.name)
    assert record is not None
    return record


def test_a_suggestion_is_seen_used_kept_with_the_picture_and_taken_back(server: Server, open_page: Open) -> None:
    page = open_page()
    prompt = page.locator("#prompt textarea")
    prompt.fill("a crimson ball")
    page.click("#enhance")
    first = page.locator(".suggestion").first
    sync_api.expect(first.locator("del").first).to_contain_text("crimson")
    sync_api.expect(first.locator(".note")).to_contain_text("red for “crimson”")
    assert prompt.input_value() == "a crimson ball"
    first.get_by_role("button").click()
    sync_api.expect(page.locator("#prompt-origin")).to_contain_text("From your words: “a crimson ball”")
    used = prompt.input_value()
    assert used.startswith("a red circle")
    page.click("#generate")
    page.wait_for_selector(DONE, state="attached")
    record = newest(server)
    assert (record.recipe.prompt, record.recipe.original_prompt) == (used, "a crimson ball")
    page.get_by_role("button", name="Back to them").click()
    sync_api.expect(prompt).to_have_value("a crimson ball")
    sync_api.expect(page.locator("#prompt-origin .suggestions")).to_be_hidden()
    page.click("#earlier-prompts")
    page.locator("#earlier-list").get_by_role("button", name=used).click()
    sync_api.expect(prompt).to_have_value(used)


def test_where_the_words_came_from_survives_a_reload(open_page: Open) -> None:
    page = open_page()
    page.fill("#prompt textarea", "two golden balls")
    page.click("#enhance")
    page.locator(".suggestion").first.get_by_role("button").click()
    sync_api.expect(page.locator("#prompt-origin")).to_contain_text("two golden balls")
    page.wait_for_timeout(4000)  # the settings are kept once they stand
    page.reload()
    wait_until_ready(page)
    sync_api.expect(page.locator("#prompt-origin")).to_contain_text("two golden balls")


def test_a_dropped_picture_is_described(open_page: Open, tmp_path: Path) -> None:
    scene = parse("a large green heart on a black background")
    assert scene is not None
    render(scene, 5, 256).save(tmp_path / "heart.png")
    page = open_page()
    page.click("#from-picture button.label-wrap")
    page.set_input_files("#drop input[type=file]", tmp_path / "heart.png")
    sync_api.expect(page.locator("#drop-note")).to_contain_text("carries no settings")
    page.click("#describe")
    entry = page.locator(".suggestion")
    sync_api.expect(entry.locator(".words")).to_have_text("a large green heart on a black background")
    entry.get_by_role("button").click()
    sync_api.expect(page.locator("#prompt textarea")).to_have_value("a large green heart on a black background")
    sync_api.expect(page.locator("#prompt-origin .suggestions")).to_be_hidden()
