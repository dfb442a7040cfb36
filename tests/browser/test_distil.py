"""Making an accelerator in Chromium: begun with one button, watched, found again, stopped, and compared."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Server, serious, wait_until_ready

pytestmark = pytest.mark.browser

PATIENCE_MS = 300_000
NUMBERS = {"num-steps": "400", "num-pictures": "8", "batch-size": "2", "rank": "2", "look-every": "20"}


def unfold(page: Page) -> None:
    page.get_by_role("tab", name="Flash").click()
    page.locator("#distil > button.label-wrap").click()


def begin(page: Page, name: str) -> None:
    unfold(page)
    page.locator("#distil-more button.label-wrap").click()
    for field, value in {"name": name, **NUMBERS}.items():
        typed = page.locator(f"#distil-{field} textarea, #distil-{field} input").first
        typed.fill(value)
        typed.press("Tab")
    page.wait_for_timeout(300)  # what was typed is where a click finds it
    page.locator("#distil-start").click()


def test_a_run_is_watched_found_again_stopped_and_compared(page: Page, server: Server) -> None:
    begin(page, "From the page")
    expect(page.locator("#distil-samples thead th").first).to_contain_text("untrained", timeout=PATIENCE_MS)
    expect(page.locator("#distil-samples td img")).to_have_count(16)
    expect(page.locator("#distil-samples thead th").first).to_contain_text("of training", timeout=PATIENCE_MS)
    page.reload()
    wait_until_ready(page)
    unfold(page)
    expect(page.locator("#distil-samples .matrix-line")).to_contain_text("Best so far", timeout=PATIENCE_MS)
    page.locator("#distil-stop").click()
    expect(page.locator("#distil-samples .matrix-line")).to_contain_text("Stopped at step", timeout=PATIENCE_MS)
    expect(page.locator("#distil-go-on")).to_be_visible()
    with page.expect_download() as download:
        page.locator("#distil-kohya").click()
    assert download.value.suggested_filename.startswith("From the page")
    page.locator("#distil-use").click()
    expect(page.locator("#flash-accelerator input")).to_have_value("From the page — MIT")
    page.wait_for_timeout(1000)  # the model's own change must not choose another
    expect(page.locator("#flash-accelerator input")).to_have_value("From the page — MIT")


def test_what_is_missing_is_said_next_to_the_button(open_page: Open) -> None:
    page = open_page(width=390)
    begin(page, " ")
    expect(page.locator("#distil-error")).to_contain_text("no name")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(open_page: Open, axe: str, dark: bool) -> None:
    page = open_page(dark=dark)
    unfold(page)
    page.locator("#distil-more button.label-wrap").click()
    page.mouse.move(0, 0)
    assert serious(page, axe) == []
