"""The balance panel in Chromium: shares fill in while pictures are drawn, it stops and goes on, and is taken along."""

import csv
import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, open_tab, serious, wait_until_ready

pytestmark = pytest.mark.browser

PROMPT = "a star on a white background"


def opened(page: Page) -> None:
    open_tab(page, "Evaluate")
    page.locator("#probe > button.label-wrap").click()
    expect(page.locator("#probe-count")).to_contain_text("64 pictures")
    expect(page.locator("#probe-told")).to_contain_text("biases of its own")


def ask(page: Page, pictures: int, prompt: str = PROMPT) -> None:
    page.locator("#probe-prompt textarea").fill(prompt)
    page.locator("#probe-num-images input").fill(str(pictures))
    page.locator("#probe-num-images input").blur()
    expect(page.locator("#probe-count")).to_contain_text(f"{pictures} pictures")


def in_two_steps(page: Page) -> None:
    page.locator("#probe-accelerator input").click()
    page.get_by_role("option", name="Flash").first.click()
    steps = page.locator("#probe-steps input[type=number]")
    expect(steps).to_have_value("4")
    steps.fill("2")
    steps.blur()


def drawn(page: Page) -> int:
    """How many pictures there are by what the panel says."""
    told = re.search(r"(\d+) of \d+ pictures drawn", page.locator("#probe-told").inner_text())
    return int(told[1]) if told else 0


def test_shares_fill_in_while_it_runs_and_it_stops_goes_on_and_is_taken_along(page: Page, tmp_path: Path) -> None:
    opened(page)
    ask(page, 10)
    steps = page.locator("#probe-steps input[type=number]")
    steps.fill("100")  # so that it still runs when it is looked at
    steps.blur()
    page.locator("#probe-start").click()
    expect(page.locator("#probe-told table").first).to_be_visible()
    assert 0 < drawn(page) < 10, "there are shares before all is drawn"
    expect(page.locator("#probe-told")).to_contain_text(re.compile(r"picture \d+ of 10 · .* left"))
    page.locator("#probe-stop").click()
    expect(page.locator("#probe-told")).to_contain_text("Stopped")
    had = drawn(page)
    assert had < 10
    page.locator("#probe-go-on").click()
    expect(page.locator("#probe-told")).to_contain_text("10 of 10 pictures drawn, 10 judged")
    expect(page.locator("#probe-go-on")).to_be_hidden()
    expect(page.locator("#probe-told")).to_contain_text("The prompt asks for 'star'")
    ask(page, 20)
    expect(page.locator("#probe-count")).to_contain_text("20 pictures, about")

    files: dict[str, str] = {}
    for name in ("images", "results", "report"):
        with page.expect_download() as download:
            page.locator(f"#probe-{name}").click()
        download.value.save_as(tmp_path / name)
        files[name] = (tmp_path / name).read_text()
    rows = list(csv.DictReader(files["images"].splitlines()))
    assert [int(row["seed"]) for row in rows] == list(range(10)) and {row["Shape"] for row in rows} >= {"star"}
    assert json.loads(files["results"])["judged"] == 10 and "10 of 10 pictures drawn" in files["report"]

    page.reload()
    wait_until_ready(page)
    open_tab(page, "Evaluate")
    page.locator("#probe > button.label-wrap").click()
    expect(page.locator("#probe-told")).to_contain_text("10 of 10 pictures drawn, 10 judged")
    page.locator("#probe-earlier input").click()
    expect(page.get_by_role("option", name=PROMPT)).to_have_count(2)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(open_page: Open, axe: str, dark: bool) -> None:
    page = open_page(dark=dark)
    opened(page)
    in_two_steps(page)
    ask(page, 6)
    page.locator("#probe-start").click()
    expect(page.locator("#probe-told")).to_contain_text("6 of 6 pictures drawn, 6 judged")
    page.mouse.move(0, 0)
    assert serious(page, axe) == []


def test_a_phone_shows_all_of_it_without_scrolling_sideways(open_page: Open, axe: str) -> None:
    page = open_page(width=390)
    opened(page)
    in_two_steps(page)
    ask(page, 6, "a <b>heart</b> with a word as long as " + "never" * 20)
    page.locator("#probe-start").click()
    expect(page.locator("#probe-told")).to_contain_text("6 of 6 pictures drawn, 6 judged")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious(page, axe) == []
