"""The Library and what leads to and from it."""

from typing import Any

import pytest

from tests.browser.test_generate import STEP, expect_text, make, set_number

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")


def test_a_picture_is_found_reproduced_and_sent_back(page: Any) -> None:
    make(page, "a white cross at the top on a mint background", seed=123)
    page.click("#to-library")
    expect_text(page, "#library-facts", "a white cross at the top on a mint background")
    page.click("#reproduce")
    page.wait_for_selector(".verdict[data-kind=identical]")

    page.fill("#search textarea", "cross seed:123")
    sync_api.expect(page.locator("#library-grid li")).to_have_count(1)
    page.click("#library-star")
    sync_api.expect(page.locator("#library-grid .star")).to_have_count(1)

    page.click("#send")
    sync_api.expect(page.locator("#seed input")).to_have_value("123")
    assert page.input_value("#prompt textarea") == "a white cross at the top on a mint background"


def test_a_reproduction_can_be_stopped_or_left(page: Any) -> None:
    page.click("#exact-size button.label-wrap")
    for side in ("#width", "#height"):
        set_number(page, side, 192)  # so that it still runs when it is stopped
    make(page, seed=31, steps=150)
    make(page, seed=32)
    sync_api.expect(page.locator("#strip li")).to_have_count(2)
    page.click("button[role=tab]:has-text('Library')")
    page.click("#library-grid li:nth-child(2) button")
    page.click("#reproduce")
    expect_text(page, "#verdict", STEP)
    page.click("#library-stop")
    expect_text(page, "#verdict", "Stopped.")
    page.click("#reproduce")
    expect_text(page, "#verdict", STEP)
    page.click("#library-grid li:nth-child(1) button")
    sync_api.expect(page.locator("#library-stage .stage-open img")).to_be_visible()
    page.wait_for_timeout(1500)  # whatever was under way to the page has arrived
    sync_api.expect(page.locator("#verdict p")).to_have_count(0)
    page.click("#reproduce")
    page.wait_for_selector(".verdict[data-kind=identical]")
