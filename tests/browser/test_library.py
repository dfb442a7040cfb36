"""The Library and what leads to and from it."""

from typing import Any

import pytest

from tests.browser.test_generate import expect_text, make

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
