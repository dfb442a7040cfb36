"""The Flash tab in Chromium: one button, columns that fill, a table, a slider; a reload finds it as it was."""

import io
import zipfile

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Server, serious, wait_until_ready

pytestmark = pytest.mark.browser


def compare(page: Page, prompts: str) -> None:
    page.get_by_role("tab", name="Flash").click()
    expect(page.locator("#flash-accelerator input")).to_have_value("Pocket Flash for SD 1.5 — MIT")
    page.locator("#flash-prompts textarea").fill(prompts)
    page.get_by_role("button", name="Compare", exact=True).click()


def test_one_button_fills_the_columns_and_a_reload_finds_them(page: Page, server: Server) -> None:
    compare(page, "a red circle on a white background")
    expect(page.locator(".matrix thead th")).to_have_count(4)
    expect(page.locator(".matrix td img")).to_have_count(8)
    expect(page.locator(".matrix-line")).to_contain_text("Done: 8 pictures")
    expect(page.locator("#flash-stop")).to_be_disabled()
    expect(page.locator(".figures")).to_contain_text("Speed-up")
    page.locator(".matrix td button").nth(2).click()
    expect(page.locator("#flash-slider img").first).to_be_visible()
    with page.expect_download() as download:
        page.locator("#flash-download").click()
    names = zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())).namelist()
    assert any(name.startswith("compare_baseline30_flash4_seed") for name in names)
    page.reload()
    wait_until_ready(page)
    page.get_by_role("tab", name="Flash").click()
    expect(page.locator(".matrix td img")).to_have_count(8)


def test_a_running_comparison_is_found_again_and_stopped(open_page: Open) -> None:
    page = open_page(width=390)
    compare(page, "\n".join(["a red circle on a white background"] * 40))
    expect(page.locator(".matrix td img").first).to_be_visible()
    page.reload()
    wait_until_ready(page)
    page.get_by_role("tab", name="Flash").click()
    expect(page.locator(".matrix-line")).to_contain_text("picture")
    page.locator("#flash-stop").click()
    expect(page.locator(".matrix-line")).to_contain_text("Stopped. What was drawn is kept.")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_is_missing_is_said_next_to_the_prompts(page: Page) -> None:
    compare(page, " ")
    expect(page.locator("#flash-error")).to_contain_text("There is no prompt.")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(open_page: Open, axe: str, dark: bool) -> None:
    page = open_page(dark=dark)
    compare(page, "a red circle on a white background")
    expect(page.locator(".matrix-line")).to_contain_text("Done: 8 pictures")
    page.locator(".matrix td button").nth(1).click()
    expect(page.locator("#flash-slider img").first).to_be_visible()
    page.locator("#flash-baseline button.label-wrap").click()
    page.mouse.move(0, 0)
    assert serious(page, axe) == []
