"""Generate, as a person uses it. One server for all tests, one browser profile for each."""

import io
import re
from typing import Any

import pytest
from PIL import Image

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")

Page = Any
SLOW = ".stage[data-phase=running] .stage-line"
DONE = ".stage[data-phase=done]"
HEART = "a yellow heart above a purple square on a navy background"
STEP = re.compile(r"Step \d+ of \d+")
LONG = {"steps": 150, "num_images": 8}
"""For jobs that are to run still, however slowly a page does its part on a machine that is busy."""


def ask(page: Page, prompt: str, **numbers: int) -> None:
    page.fill("#prompt textarea", prompt)
    if "steps" in numbers:
        open_care(page)
        set_number(page, "#num-inference-steps", numbers["steps"])
    if "num_images" in numbers:
        set_number(page, "#num-images", numbers["num_images"])
    if "seed" in numbers:
        set_number(page, "#seed", numbers["seed"])


def open_care(page: Page) -> None:
    if not page.is_visible("#num-inference-steps"):
        page.click("#care button.label-wrap")
        page.wait_for_timeout(500)  # its sliders set their own values once more


def set_number(page: Page, control: str, number: int) -> None:
    """Type a number. A slider in a panel that has just opened sets its own value once more, some milliseconds late."""
    box = page.locator(f"{control} input[type=number]")
    for _ in range(5):
        box.fill(str(number))
        box.press("Tab")
        page.wait_for_timeout(150)
        if box.input_value() == str(number):
            return
    raise AssertionError(f"{control} does not take {number}")


def generate(page: Page, prompt: str = "a red circle on a white background", **numbers: int) -> None:
    ask(page, prompt, **numbers)
    page.click("#generate")


def make(page: Page, prompt: str = "a red circle on a white background", **numbers: int) -> None:
    generate(page, prompt, **{"steps": 4, **numbers})
    wait_for_result(page)


def wait_for_result(page: Page) -> None:
    page.wait_for_selector(f"{DONE} .stage-open img[src^='pictures/']", state="attached")
    sync_api.expect(page.locator("#stop")).to_be_disabled()


def expect_text(page: Page, selector: str, text: str | re.Pattern[str]) -> None:
    sync_api.expect(page.locator(selector)).to_contain_text(text)


def shown_file(page: Page, server: Any) -> bytes:
    """The file of the picture on the stage, found by its pixels' seed in the facts."""
    seed = page.inner_text("#facts dd >> nth=0")
    (path,) = [path for path in server.pictures if f"-{seed}-" in path.name]
    return path.read_bytes()


def test_an_engine_that_is_killed_is_replaced_and_the_picture_arrives(page: Page, server: Any) -> None:
    generate(page, seed=4711, steps=150)
    expect_text(page, ".stage-line", STEP)
    killed = server.engine
    killed.kill()
    wait_for_result(page)
    assert server.engine.pid != killed.pid
    assert sum("-4711-" in path.name for path in server.pictures) == 1


def test_a_prompt_becomes_a_picture_in_the_gallery(page: Page, server: Any) -> None:
    before = len(server.pictures)
    make(page, seed=11)
    assert len(server.pictures) == before + 1
    expect_text(page, "#facts", "11")
    expect_text(page, "#facts", "DPM++ 2M Karras")
    assert page.locator("#strip li").count() == 1


def test_the_picture_shows_what_was_asked(page: Page, server: Any) -> None:
    from engines.pocket.checker import judge
    from engines.pocket.grammar import parse

    generate(page, HEART, seed=8)
    wait_for_result(page)
    scene = parse(HEART)
    assert scene is not None
    assert judge(Image.open(io.BytesIO(shown_file(page, server))).convert("RGB"), scene).correct


def test_stop_ends_within_a_step_and_keeps_finished_pictures(page: Page, server: Any) -> None:
    before = len(server.pictures)
    generate(page, **LONG)
    expect_text(page, ".stage-line", STEP)
    page.click("#stop")
    page.wait_for_selector(".stage:not([data-phase=running]):not([data-phase=waiting])", timeout=20_000)
    expect_text(page, "#stage", "Stopped")
    assert len(server.pictures) < before + 8
    sync_api.expect(page.locator("#strip li")).to_have_count(len(server.pictures) - before)


def test_a_reload_in_the_middle_finds_the_job_again(page: Page) -> None:
    generate(page, "two green rings on a black background", **LONG)
    expect_text(page, ".stage-line", STEP)
    page.wait_for_timeout(1500)  # the settings are kept once they stand
    page.reload(wait_until="domcontentloaded")
    page.wait_for_selector("body[data-ready='1']")
    sync_api.expect(page.locator("#prompt textarea")).to_have_value("two green rings on a black background")
    expect_text(page, ".stage-line", STEP)
    page.wait_for_selector(f"{SLOW} >> text=/Step/")
    page.click("#stop")
    expect_text(page, "#stage", "Stopped")


def test_a_job_that_ends_during_a_reload_is_shown_all_the_same(page: Page) -> None:
    generate(page, steps=4, seed=51)
    page.wait_for_selector(".stage:not([data-phase=idle])")
    page.reload(wait_until="domcontentloaded")
    page.wait_for_selector("body[data-ready='1']")
    wait_for_result(page)
    expect_text(page, "#facts", "51")
    sync_api.expect(page.locator("#strip li")).to_have_count(1)


def test_a_thumbnail_opens_above_the_picture_being_made(page: Page) -> None:
    make(page, seed=52)
    generate(page, seed=53, **LONG)
    expect_text(page, ".stage-line", STEP)
    page.click("#strip button")
    sync_api.expect(page.locator("#stage dialog[open] img")).to_be_visible()
    page.keyboard.press("Escape")
    sync_api.expect(page.locator("#stage dialog[open]")).to_have_count(0)
    expect_text(page, ".stage-line", STEP)
    assert not page.is_visible("#delete")
    page.click("#stop")
    expect_text(page, "#stage", "Stopped")


def test_two_browsers_see_nothing_of_each_other(open_page: Any) -> None:
    first, second = open_page(), open_page()
    generate(first, "a pink diamond on a gray background", **LONG)
    expect_text(first, ".stage-line", STEP)
    second.reload(wait_until="domcontentloaded")
    second.wait_for_selector("body[data-ready='1']")
    assert second.input_value("#prompt textarea") == ""
    assert second.get_attribute(".stage", "data-phase") == "idle"
    assert second.is_disabled("#stop")
    first.click("#stop")
    expect_text(first, "#stage", "Stopped")


def test_keys_generate_and_stop(page: Page) -> None:
    ask(page, "a red circle on a white background", **LONG)
    page.focus("#prompt textarea")
    page.keyboard.press("Control+Enter")
    expect_text(page, ".stage-line", STEP)
    assert page.input_value("#prompt textarea") == "a red circle on a white background"
    page.keyboard.press("Escape")
    expect_text(page, "#stage", "Stopped")


def test_a_download_is_the_file_and_a_dropped_file_brings_its_settings_back(page: Page, server: Any) -> None:
    make(page, "a small pink diamond on a gray background", seed=4_000_000_001, steps=3)
    with page.expect_download() as download:
        page.click("#download")
    content = download.value.path().read_bytes()
    assert content == shown_file(page, server)

    page.fill("#prompt textarea", "something else")
    set_number(page, "#seed", 1)
    page.click("#from-picture button.label-wrap")
    page.set_input_files("#drop input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": content})
    expect_text(page, "#drop-note", "in place")
    assert page.input_value("#prompt textarea") == "a small pink diamond on a gray background"
    assert page.input_value("#seed input") == "4000000001"
    open_care(page)
    assert page.input_value("#num-inference-steps input[type=number]") == "3"


def test_an_empty_prompt_is_told_next_to_the_prompt(page: Page) -> None:
    page.click("#generate")
    expect_text(page, "#prompt-error", "There is no prompt. Write what the picture should show.")


def test_a_word_the_model_never_learnt_is_named_while_typing(page: Page) -> None:
    page.locator("#prompt textarea").press_sequentially("a red cat")
    expect_text(page, "#prompt-warning", "“cat”")
    page.fill("#prompt textarea", "a red circle")
    sync_api.expect(page.locator("#prompt-warning .field-warning")).to_have_count(0)


def test_the_negative_prompt_is_off_at_guidance_one_and_says_why(page: Page) -> None:
    page.click("#care button.label-wrap")
    page.click("#look button.label-wrap")
    sync_api.expect(page.locator("#negative-prompt textarea")).to_be_enabled()
    set_number(page, "#guidance-scale", 1)
    sync_api.expect(page.locator("#negative-prompt textarea")).to_be_disabled()
    expect_text(page, "#negative-prompt", "guidance is off")


def test_an_example_fills_the_prompt(page: Page) -> None:
    page.click("#examples button >> nth=1")
    sync_api.expect(page.locator("#prompt textarea")).to_have_value("a large red circle on a white background")


def test_a_request_repeated_exactly_shows_the_picture_that_is_there(page: Page, server: Any) -> None:
    make(page, seed=61)
    before = len(server.pictures)
    page.click("#generate")
    expect_text(page, ".stage-line", re.compile(r"Made before, on .* at \d\d:\d\d; nothing was drawn again\."))
    wait_for_result(page)
    assert len(server.pictures) == before
    sync_api.expect(page.locator("#strip li")).to_have_count(1)


def test_reuse_brings_the_seed_back_and_delete_asks_first(page: Page, server: Any) -> None:
    make(page, seed=77)
    page.click("#seed-random")
    sync_api.expect(page.locator("#seed input")).to_have_value("-1")
    page.click("#seed-reuse")
    sync_api.expect(page.locator("#seed input")).to_have_value("77")
    before = len(server.pictures)
    page.click("#delete")
    page.click("#delete-yes")
    sync_api.expect(page.locator("#strip li")).to_have_count(0)
    assert len(server.pictures) == before - 1
