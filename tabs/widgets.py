"""Small elements that Gradio lacks: the stage, a grid of pictures, chips, and cards.

Each is a `gr.HTML` whose markup never changes: a script (tabs/assets) writes text and attributes from the value, which
is a JSON text, so nothing that a person typed is ever parsed as HTML, and nothing flickers or jumps.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).parent / "assets"


@cache
def asset(name: str) -> str:
    """The text of a file in tabs/assets."""
    return (ASSETS / name).read_text(encoding="utf-8")


def build_stage(value: str, elem_id: str) -> gr.HTML:
    """The large picture with its progress bar; see `tabs.views` for values. Its `example` event carries a `text`."""
    return _build("stage", value, elem_id)


def build_pictures(value: str, elem_id: str) -> gr.HTML:
    """A grid of thumbnails; see `tabs.views.pictures`. Its `pick` event carries an `id`."""
    return _build("pictures", value, elem_id)


def build_chips(texts: tuple[str, ...], label: str, elem_id: str) -> gr.HTML:
    """A row of small buttons. Its `pick` event carries a `text`."""
    return _build("chips", chips(texts, label), elem_id)


def build_cards(value: str, elem_id: str) -> gr.HTML:
    """A list of things to choose, each with a picture and two lines; see `tabs.adapters`. Its `pick` event carries an
    `id`."""
    return _build("cards", value, elem_id)


def build_matrix(value: str, elem_id: str) -> gr.HTML:
    """Pictures in rows and columns under headings; see `tabs.flash_views.matrix`. Its `pick` event carries an `id`."""
    return _build("matrix", value, elem_id)


def build_systems(value: str, elem_id: str) -> gr.HTML:
    """The ways of drawing that are compared; see `tabs.evaluate_views.systems`. Its `pick` event carries a `name`, and
    whether that becomes the baseline or goes: `does`."""
    return _build("systems", value, elem_id)


def build_suggestions(elem_id: str) -> gr.HTML:
    """Prompts that are suggested, each with what it changes and why; see `tabs.enhance`. Its `take` event carries a
    `prompt`; `more` asks for others, `back` for the words before, `close` puts it away."""
    return _build("suggestions", as_json(), elem_id)


def build_signal(elem_id: str) -> gr.HTML:
    """Nothing to see. Its `play` event fires when its value, a job's id, changes: `gr.on` takes only events that
    Gradio names itself, and (in 6.31) hears no change of a `gr.State`."""
    return gr.HTML(
        html_template=asset("signal.html"), js_on_load=asset("signal.js"), apply_default_css=False, elem_id=elem_id
    )


def chips(texts: tuple[str, ...], label: str) -> str:
    """The value of a row of chips."""
    return as_json(label=label, texts=texts)


def as_json(**fields: Any) -> str:
    """The value of a widget. A text, for an object would reach the page as differences that Gradio's client (6.31)
    applies in place to what the page already holds, and a page handed the same object again can miss the change."""
    return json.dumps(fields, ensure_ascii=False)


def _build(name: str, value: str, elem_id: str) -> gr.HTML:
    return gr.HTML(
        value,
        html_template=asset(f"{name}.html"),
        js_on_load=asset(f"{name}.js"),
        apply_default_css=False,
        elem_id=elem_id,
    )


def scroll_to(elem_id: str) -> str:
    """A script that brings an element into view that an event has just made visible. What is out of sight below many
    pictures would not be seen, nor are its pictures loaded."""
    return (
        "() => { const look = left => { "
        f"const found = document.getElementById('{elem_id}'); "
        "if (found) found.scrollIntoView({ block: 'start' }); else if (left) setTimeout(look, 100, left - 1); "
        "}; look(20); }"
    )
