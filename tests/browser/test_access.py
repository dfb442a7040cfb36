"""Everybody can use it: axe finds nothing serious, and a phone is wide enough."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_generate import make

pytestmark = pytest.mark.browser

HERE = Path(__file__).parent
AXE = HERE / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's script, fetched once through npm into a folder that git ignores."""
    if not AXE.exists() and shutil.which("npm"):
        command = ["npm", "install", "--prefix", str(HERE), "--no-save", "--no-package-lock", "axe-core@4"]
        subprocess.run(command, capture_output=True, timeout=120, check=False)
    if not AXE.exists():
        pytest.skip("axe-core is not here and npm could not fetch it")
    return AXE.read_text(encoding="utf-8")


def serious(page: Any, axe: str) -> list[str]:
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html']}" for v in found if v["impact"] in ("serious", "critical")]


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
