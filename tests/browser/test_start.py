"""A picture to begin from, in a real browser: refused or taken, and made larger."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from engines.pocket.grammar import parse
from engines.pocket.world import render
from tests.browser.conftest import Server, serious

pytestmark = pytest.mark.browser

Open = Callable[..., Any]


def drawn(page: Any, server: Server, press: Callable[[], None]) -> np.ndarray:
    """The pixels of the picture that comes of `press`."""
    before = set(server.pictures)
    press()
    page.wait_for_function("() => document.querySelector('#stage')?.innerText !== null")
    for _ in range(600):
        new = set(server.pictures) - before
        if new and page.locator("#stop").is_disabled():
            with Image.open(new.pop()) as image:
                return np.asarray(image.convert("RGB"))
        page.wait_for_timeout(100)
    raise AssertionError("no picture came")


def test_a_file_that_is_no_picture_is_said_and_one_that_is_gives_its_size(
    open_page: Open, server: Server, tmp_path: Path, axe: str
) -> None:
    page = open_page(width=390, dark=True)
    page.click("#start .label-wrap")
    (tmp_path / "bad.png").write_text("<html>")
    page.set_input_files("#start-file input[type=file]", tmp_path / "bad.png")
    page.wait_for_selector("#start-told:has-text('bad.png is no PNG')")
    Image.linear_gradient("L").resize((160, 120)).convert("RGB").save(tmp_path / "good.png")
    page.set_input_files("#start-file input[type=file]", tmp_path / "good.png")
    page.wait_for_selector("#start-remove", state="visible")
    page.fill("#prompt textarea", "a red circle on a white background")
    assert drawn(page, server, lambda: page.click("#generate")).shape == (120, 160, 3)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious(page, axe) == []


def test_what_is_painted_over_changes_and_the_rest_keeps_its_pixels(
    open_page: Open, server: Server, tmp_path: Path
) -> None:
    circle = scene("a large green circle on a black background", tmp_path / "circle.png")
    page = open_page()
    page.click("#start .label-wrap")
    page.set_input_files("#start-file input[type=file]", circle)
    canvas = page.locator("#start-editor canvas").first
    canvas.wait_for(timeout=120_000)
    page.fill("#prompt textarea", "a small blue square on a yellow background")
    page.wait_for_timeout(2000)  # the editor lays its picture out
    box = canvas.bounding_box()
    for _ in range(20):
        page.wait_for_timeout(250)
        if box == (box := canvas.bounding_box()):
            break
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 8, y, steps=2)  # without a GPU each step takes its time
    page.mouse.up()
    picture = drawn(page, server, lambda: page.click("#generate")).astype(int)
    with Image.open(circle) as image:
        source = np.asarray(image.convert("RGB")).astype(int)
    changed = np.abs(picture - source).sum(axis=-1) > 0
    assert 0.02 < changed.mean() < 0.5
    assert not changed[:16].any() and not changed[-16:].any()
    expect(page.locator("#facts")).to_contain_text("in a part")


def test_larger_makes_the_same_picture_larger(open_page: Open, server: Server) -> None:
    page = open_page()
    page.fill("#prompt textarea", "a large red circle on a white background")
    page.fill("#seed input", "7")
    drawn(page, server, lambda: page.click("#generate"))
    page.click("#result-larger")
    page.wait_for_selector("#hires-strength", state="visible")
    assert drawn(page, server, lambda: page.click("#generate")).shape == (192, 192, 3)


def scene(text: str, path: Path) -> Path:
    shown = parse(text)
    assert shown is not None
    render(shown, 5, 128).save(path)
    return path


def test_it_keeps_to_the_shape_of_a_picture(open_page: Open, server: Server, tmp_path: Path, axe: str) -> None:
    heart = scene("a large green heart on a black background", tmp_path / "heart.png")
    page = open_page(width=390)
    page.click("#keep-to .label-wrap")
    page.set_input_files("#keep-to-file input[type=file]", heart)
    page.wait_for_selector("#keep-to-preview img", state="visible")
    page.fill("#prompt textarea", "a blue heart on a white background")
    picture = drawn(page, server, lambda: page.click("#generate")).astype(int)
    with Image.open(heart) as image:
        wanted = np.asarray(image.convert("RGB")).astype(int)[..., 1] > 90
    blue = (picture[..., 2] - picture[..., 0]) > 90
    assert (blue & wanted).sum() / (blue | wanted).sum() > 0.6
    assert serious(page, axe) == []
    page.click("#keep-to-remove")
    page.wait_for_selector("#keep-to-preview", state="hidden")
