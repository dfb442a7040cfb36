"""A sweep in Chromium: two settings over prompts of one's own, and the page whose axes turn opens anywhere."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, open_tab, serious

pytestmark = pytest.mark.browser

PROMPTS = (
    "a red star on a white background", "two blue circles", "a green heart above a yellow square", "an orange ring",
    "a small pink cross on a navy background", "three black diamonds",
)  # fmt: skip
PATIENCE_MS = 120_000


def choose(page: Page, field: str, option: str) -> None:
    page.locator(f"#evaluate-{field} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def sweep(page: Page) -> None:
    """Steps across and decoders down, of the example's quickest way of drawing, on six prompts: fewer rank nothing."""
    open_tab(page, "Evaluate")
    page.get_by_role("button", name="Many steps against few").click()
    page.get_by_role("button", name="Make baseline: 2 steps").click()
    expect(page.locator("#evaluate-systems li", has_text="2 steps").locator(".systems-badge")).to_be_visible()
    choose(page, "preset", "Smoke — 8 prompts, 1 picture each")
    choose(page, "prompt-set", "My own")
    page.locator("#evaluate-prompts textarea").fill("\n".join(PROMPTS))
    page.locator("#evaluate-sweep-frame > button.label-wrap").click()
    choose(page, "x-field", "Steps")
    page.locator("#evaluate-x-values textarea").fill("2, 4")
    choose(page, "y-field", "Decoder")
    page.locator("#evaluate-y-values textarea").fill("full, tiny")
    page.locator("#evaluate-y-values textarea").blur()
    expect(page.locator("#evaluate-count")).to_contain_text("4 systems × 6 prompts × 1: 24 pictures")
    page.locator("#evaluate-start").click()
    expect(page.locator("#evaluate-matrix .matrix-line")).to_contain_text("Done", timeout=PATIENCE_MS)


def figures(page: Page) -> list[list[str]]:
    """What each table of the sweep says, row by row."""
    rows = page.locator("#evaluate-table table.sweep tr").all()
    return [[cell.inner_text() for cell in row.locator("th, td").all()] for row in rows]


def test_two_settings_are_swept_and_the_page_that_is_left_turns(page: Page, tmp_path: Path) -> None:
    sweep(page)
    head, full, tiny = figures(page)
    assert head[1:] == ["2", "4"] and "Decoder" in head[0] and "Steps" in head[0]
    assert (full[0], tiny[0]) == ("full", "tiny") and all(re.match(r"\d", cell) for cell in full[1:] + tiny[1:])
    expect(page.locator("#evaluate-table")).to_contain_text("Best by CLIP score is")
    expect(page.locator("#evaluate-matrix tbody img")).to_have_count(4)
    expect(page.locator("#evaluate-page")).to_contain_text("Prompt 1 of 6")

    with page.expect_download() as download:
        page.locator("#evaluate-sweep").click()
    download.value.save_as(tmp_path / "sweep.html")
    alone = page.context.new_page()
    alone.route("http*://**", lambda route: pytest.fail(f"asked for {route.request.url}"))
    alone.goto((tmp_path / "sweep.html").as_uri())
    turned(alone)
    alone.close()


def turned(alone: Page) -> None:
    """Its axes are changed: what lay down lies across, prompts instead of decoders, and every cell has its picture."""
    table = alone.locator("table.pictures")

    def heads() -> tuple[list[str], list[str]]:
        across = [each.inner_text() for each in table.locator("tr").first.locator("th").all()]
        return across, [row.locator("th").inner_text() for row in table.locator("tr").all()[1:]]

    def look() -> list[str]:
        alone.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        return [image.get_attribute("src") or "" for image in table.locator("img").all()]

    assert heads() == (["2", "4"], ["full", "tiny"])
    first = look()
    assert len(first) == len(set(first)) == 4
    alone.get_by_label("Across").focus()
    alone.get_by_label("Across").select_option("Decoder")
    expect(alone.get_by_label("Across")).to_be_focused()
    assert heads() == (["full", "tiny"], ["2", "4"])
    assert look() == [first[0], first[2], first[1], first[3]], "the same pictures, turned"
    alone.get_by_label("Down").select_option("Prompt")
    assert heads() == (["full", "tiny"], list(PROMPTS))
    assert look()[:2] == [first[0], first[2]] and len(look()) == 12
    alone.locator("#pivot select[name=Steps]").select_option("4")
    assert look()[:2] == [first[1], first[3]]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(open_page: Open, axe: str, tmp_path: Path, dark: bool) -> None:
    page = open_page(dark=dark, width=390 if dark else 1280)
    sweep(page)
    page.mouse.move(0, 0)
    assert serious(page, axe) == []
    if dark:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    with page.expect_download() as download:
        page.locator("#evaluate-sweep").click()
    download.value.save_as(tmp_path / "sweep.html")
    alone = page.context.new_page()
    alone.goto((tmp_path / "sweep.html").as_uri())
    expect(alone.locator("table.pictures img").first).to_be_visible()
    assert serious(alone, axe) == []
    assert alone.evaluate("document.documentElement.scrollWidth") <= alone.evaluate("innerWidth")
    alone.close()
