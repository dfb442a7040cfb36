"""The System tab: a checkpoint picked by its path can be chosen at once, without a reload."""

from pathlib import Path

import pytest

from tests.browser.conftest import Open, open_tab
from tests.engines.test_soundness import copy_of_pocket

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")


def test_a_checkpoint_picked_by_its_path_can_be_chosen_at_once(open_page: Open, tmp_path: Path) -> None:
    page = open_page(width=390)
    open_tab(page, "System")
    field, note = page.get_by_label("Path of a checkpoint on this machine"), page.locator("#model-add-note")
    field.fill(str(tmp_path / "nothing"))
    field.press("Enter")
    sync_api.expect(note.get_by_role("alert")).to_contain_text("There is no file or folder at")
    sync_api.expect(field).to_have_value(str(tmp_path / "nothing"))
    field.fill(str(copy_of_pocket(tmp_path / "shapes from a friend")))
    page.get_by_role("button", name="Add", exact=True).click()
    sync_api.expect(note).to_have_text("shapes from a friend is in the list of models: SD 1.5; it predicts noise.")
    sync_api.expect(field).to_have_value("")
    sync_api.expect(page.locator("#system-models")).to_contain_text("shapes from a friend")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("tab", name="Generate").click()
    page.click("#checkpoint input")
    page.get_by_role("option", name="shapes from a friend").click()
    sync_api.expect(page.locator("#model-note")).to_contain_text("from the models folder")
