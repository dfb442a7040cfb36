"""Evaluating in Chromium: the offered example is drawn, read, voted on blind, and its report opens anywhere."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Server, open_tab, serious, wait_until_ready

pytestmark = pytest.mark.browser

PATIENCE_MS = 300_000


def choose(page: Page, field: str, option: str) -> None:
    page.locator(f"#evaluate-{field} input").click()
    page.get_by_role("option", name=option).click()


def evaluate_small(page: Page) -> None:
    """The offered example, without its slowest systems, on the fewest prompts."""
    open_tab(page, "Evaluate")
    expect(page.locator("#evaluate-systems li").first).to_contain_text("30 steps")
    page.get_by_role("button", name="Make baseline: 8 steps").click()
    expect(page.locator("#evaluate-systems .systems-badge")).to_have_count(1)
    with_adapter = page.locator("#evaluate-systems li", has_text="×")
    if with_adapter.count():  # another test has left one
        with_adapter.get_by_role("button", name="Remove").click()
        expect(with_adapter).to_have_count(0)
    page.get_by_role("button", name="Remove: 30 steps").click()
    expect(page.locator("#evaluate-systems li")).to_have_count(3)
    choose(page, "preset", "Smoke")
    expect(page.locator("#evaluate-count")).to_contain_text("3 systems × 8 prompts × 1: 24 pictures")
    page.locator("#evaluate-start").click()
    expect(page.locator("#evaluate-matrix .matrix-line")).to_contain_text("Done", timeout=PATIENCE_MS)
    expect(page.locator("#evaluate-table")).to_contain_text("8 of 8 prompts")


def test_the_example_is_evaluated_voted_on_and_reported(page: Page, server: Server, tmp_path: Path) -> None:
    evaluate_small(page)
    expect(page.locator("#evaluate-verdict .verdict-line")).to_contain_text("on 8 prompts")
    expect(page.locator("#evaluate-verdict")).to_contain_text("this judge sees colour")
    expect(page.locator("#evaluate-matrix tbody img")).to_have_count(18)
    page.locator("#evaluate-forth").click()
    expect(page.locator("#evaluate-page")).to_contain_text("Prompts 7–8 of 8")
    expect(page.locator("#evaluate-matrix tbody img")).to_have_count(6)
    page.locator("#evaluate-matrix tbody button").last.click()
    expect(page.locator("#evaluate-slider img").first).to_be_visible()
    expect(page.locator("#evaluate-facts")).to_contain_text("CLIP score")

    closer = page.locator("#evaluate-plots details", has_text="Every pair")
    closer.locator("summary").click()
    page.wait_for_timeout(3_000)  # the page asks again every other second
    expect(closer.locator("tbody tr")).to_have_count(3)
    expect(closer.locator("tbody tr").first).to_be_visible()
    expect(page.locator("#evaluate-plots")).to_contain_text("How alike the pictures are")

    page.locator("#vote-open").click()
    expect(page.locator("#vote-stage .vote-pair img").first).to_be_visible()
    for number in (1, 2, 3):
        left = page.locator("#vote-stage .vote-count").inner_text()
        page.keyboard.press(str(number))
        expect(page.locator("#vote-stage .vote-count")).not_to_have_text(left)
    assert "steps" not in page.locator("#vote-stage .vote-pair").inner_text()
    page.get_by_role("button", name="Show results").click()
    expect(page.locator("#vote-stage .vote-told")).to_contain_text("3 votes")

    with page.expect_download() as download:
        page.locator("#evaluate-report").click()
    download.value.save_as(tmp_path / "report.html")
    alone = page.context.new_page()
    alone.route("http*://**", lambda route: pytest.fail(f"asked for {route.request.url}"))
    alone.goto((tmp_path / "report.html").as_uri())
    expect(alone.locator(".verdict-line")).to_contain_text("on 8 prompts")
    assert alone.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    alone.close()

    page.reload()
    wait_until_ready(page)
    open_tab(page, "Evaluate")
    expect(page.locator("#evaluate-systems li")).to_have_count(3)
    expect(page.locator("#evaluate-verdict .verdict-line")).to_contain_text("on 8 prompts")


def test_results_are_opened_again_and_a_picture_goes_to_generate(page: Page, tmp_path: Path) -> None:
    evaluate_small(page)
    with page.expect_download() as download:
        page.locator("#evaluate-results").click()
    download.value.save_as(tmp_path / "results.json")
    told = page.locator("#evaluate-table table").inner_text()
    with page.expect_file_chooser() as chooser:
        page.locator("#evaluate-take-in").click()
    chooser.value.set_files(tmp_path / "results.json")
    expect(page.locator("#evaluate-page")).to_contain_text("of 8")
    expect(page.locator("#evaluate-matrix tbody img")).to_have_count(18)
    assert page.locator("#evaluate-table table").inner_text() == told
    (tmp_path / "results.json").write_text("{}", encoding="utf-8")
    with page.expect_file_chooser() as chooser:
        page.locator("#evaluate-take-in").click()
    chooser.value.set_files(tmp_path / "results.json")
    expect(page.locator("#evaluate-error")).to_contain_text("no evaluation of this studio")

    picture = page.locator("#evaluate-matrix tbody button").first
    asked = picture.locator("img").get_attribute("alt") or ""
    picture.click()
    expect(page.locator("#evaluate-slider img").first).to_be_visible()
    page.locator("#evaluate-send").click()
    expect(page.locator("#prompt textarea")).to_have_value(asked.partition(": ")[2])
    expect(page.locator("#prompt textarea")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(open_page: Open, axe: str, dark: bool) -> None:
    page = open_page(dark=dark)
    evaluate_small(page)
    page.locator("#evaluate-add-frame button.label-wrap").click()
    page.locator("#evaluate-judges button.label-wrap").click()
    page.mouse.move(0, 0)
    assert serious(page, axe) == []


def test_a_phone_shows_all_of_it_without_scrolling_sideways(open_page: Open) -> None:
    page = open_page(width=390)
    evaluate_small(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
