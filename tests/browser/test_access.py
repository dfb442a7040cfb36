"""Everybody can use it: axe finds nothing serious, and a phone is wide enough."""

from typing import Any

import pytest

from tests.browser.conftest import serious
from tests.browser.test_generate import make

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(open_page: Any, axe: str, dark: bool) -> None:
    page = open_page(dark=dark)
    page.click("#generate")
    page.wait_for_selector("#prompt-error .field-error")
    assert serious(page, axe) == []
    make(page, "a red cat")
    for part in ("look", "exact-size", "from-picture"):
        page.click(f"#{part} button.label-wrap")
    page.mouse.move(0, 0)
    assert serious(page, axe) == []
    page.click("#to-library")
    page.wait_for_selector("#library-facts dl")
    assert serious(page, axe) == []
    page.click("button[role=tab]:has-text('System')")
    page.wait_for_selector("#system-queue dl")
    assert serious(page, axe) == []


def test_a_phone_needs_no_sideways_scrolling(open_page: Any) -> None:
    page = open_page(width=390)
    make(page, "a red circle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("#to-library")
    page.wait_for_selector("#library-facts dl")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
