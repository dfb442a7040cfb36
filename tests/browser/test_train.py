"""Training an adapter in Chromium: pictures dropped in, begun, watched, stopped, and used in Generate."""

import pytest
from playwright.sync_api import Page, expect

from studio.settings import PROJECT_ROOT
from tests.browser.conftest import Open, Server, open_tab, serious, wait_until_ready

pytestmark = pytest.mark.browser

PATIENCE_MS = 300_000
CRESCENTS = PROJECT_ROOT / "examples" / "crescents"
NUMBERS = {"num-steps": "400", "batch-size": "2", "rank": "2", "look-every": "5", "num-prior": "0"}


def begin(page: Page, name: str, **numbers: str) -> None:
    page.locator("#train-name").get_by_role("textbox").fill(name)
    page.locator("#train-more button.label-wrap").click()
    for field, value in {**NUMBERS, **numbers}.items():
        page.locator(f"#train-{field} input").fill(value)
        page.locator(f"#train-{field} input").press("Tab")
    page.locator("#train-start").click()


def test_pictures_are_dropped_in_learnt_and_called_in_generate(page: Page, server: Server) -> None:
    open_tab(page, "Train LoRA")
    page.locator("#train-files input[type=file]").set_input_files(sorted(CRESCENTS.iterdir()))
    expect(page.locator("#train-pictures")).to_contain_text("16 pictures: 16 can be used")
    expect(page.locator("#train-plan")).to_contain_text("16 pictures. ")
    expect(page.locator("#train-plan")).to_contain_text("free on the CPU")
    page.locator("#train-captions button.label-wrap").click()
    expect(page.locator("#train-table")).to_contain_text("an orange sks on a mint background")
    begin(page, "Dropped in")
    expect(page.locator("#train-samples thead th").nth(2)).to_be_visible(timeout=PATIENCE_MS)
    page.reload()
    wait_until_ready(page)
    open_tab(page, "Train LoRA")
    expect(page.locator("#train-samples .matrix-line")).to_contain_text("Best so far", timeout=PATIENCE_MS)
    page.locator("#train-stop").click()
    expect(page.locator("#train-samples .matrix-line")).to_contain_text("Stopped at step", timeout=PATIENCE_MS)
    expect(page.locator("#train-go-on")).to_be_visible()
    with page.expect_download() as download:
        page.locator("#train-kohya").click()
    assert download.value.suggested_filename.startswith("Dropped in")
    page.locator("#train-use").click()
    expect(page.locator("#prompt textarea")).to_have_value(r"an orange sks on a mint background <lora:Dropped in:1>")


def test_what_is_missing_is_said_next_to_the_button(open_page: Open) -> None:
    page = open_page(width=390)
    open_tab(page, "Train LoRA")
    begin(page, "Nothing")
    expect(page.locator("#train-error")).to_contain_text("nothing to learn from")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(open_page: Open, axe: str, dark: bool) -> None:
    page = open_page(dark=dark)
    open_tab(page, "Train LoRA")
    page.locator("#train-more button.label-wrap").click()
    page.mouse.move(0, 0)
    assert serious(page, axe) == []


def test_checkpoints_are_compared_and_one_is_used(page: Page, axe: str) -> None:
    open_tab(page, "Train LoRA")
    page.locator("#train-files input[type=file]").set_input_files(sorted(CRESCENTS.iterdir()))
    expect(page.locator("#train-plan")).to_contain_text("16 pictures. ")
    begin(page, "Compared", **{"num-steps": "10"})
    expect(page.locator("#train-samples .matrix-line")).to_contain_text("Done", timeout=PATIENCE_MS)
    page.locator("#train-evaluate").click()
    page.locator("#train-grid-prompts textarea").fill("a red sks on a white background")
    page.locator("#train-grid-scales").get_by_label("0.5").uncheck()
    page.locator("#train-grid-ordinary input[type='number']").fill("0")
    page.locator("#train-grid-ordinary input[type='number']").press("Enter")
    expect(page.locator("#train-grid-count")).to_contain_text("3 columns, one without an adapter, of 2 pictures")
    page.locator("#train-grid-draw").click()
    expect(page.locator("#train-grid-matrix .matrix-line")).to_contain_text("Done", timeout=PATIENCE_MS)
    expect(page.locator("#train-grid-verdict")).to_contain_text("pictures", timeout=PATIENCE_MS)
    page.locator("#train-grid-matrix thead button").last.press("Enter")
    expect(page.locator("#train-grid-chosen")).to_contain_text("Chosen: step 10 at scale 1.")
    assert serious(page, axe) == []
    page.reload()
    wait_until_ready(page)
    open_tab(page, "Train LoRA")
    page.set_viewport_size({"width": 390, "height": 900})
    expect(page.locator("#train-grid-matrix img")).to_have_count(6)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 900})
    page.locator("#train-grid-matrix thead button").last.click()
    page.locator("#train-grid-use").click()
    expect(page.locator("#prompt textarea")).to_have_value("a red sks on a white background <lora:Compared:1>")
    page.locator("#generate").click()
    expect(page.locator("#result .facts")).to_contain_text("Seed", timeout=PATIENCE_MS)
