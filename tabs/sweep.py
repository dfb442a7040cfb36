"""The part of the Evaluate tab where settings are swept: up to three, each with its values."""

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.sweep import AXIS_FIELDS, AXIS_TITLES, Axis, parse_axis
from tabs import controls

LETTERS = ("x", "y", "z")
_WHAT = (
    "The baseline is drawn with every combination of these values; other ways of drawing are left out. Values with "
    "commas between, numbers also as 2-8 (+2) or 1-4 [5]."
)


def build_sweep() -> dict[str, Component]:
    """The controls by name: `x_field`, `x_values` and so on."""
    choices = [("Nothing", ""), *((AXIS_TITLES[field], field) for field in AXIS_FIELDS)]
    fields: dict[str, Component] = {}
    with gr.Accordion("Sweep settings — X, Y, Z", open=False, elem_id="evaluate-sweep-frame"):
        gr.HTML(controls.note(_WHAT), js_on_load=None)
        for letter in LETTERS:
            with gr.Row(elem_classes="sweep-row"):
                fields[f"{letter}_field"] = gr.Dropdown(
                    choices, value="", label=f"{letter.upper()} axis", filterable=False, scale=2, min_width=120,
                    elem_id=f"evaluate-{letter}-field",
                )  # fmt: skip
                fields[f"{letter}_values"] = gr.Textbox(
                    label=f"{letter.upper()} values", placeholder="2, 4, 8", scale=3, min_width=120,
                    elem_id=f"evaluate-{letter}-values",
                )  # fmt: skip
    return fields


def axes_of(values: Mapping[str, Any]) -> list[Axis]:
    """What the controls ask for.

    Raises:
        InvalidRequest: values that the setting cannot have.
    """
    chosen = [(values.get(f"{letter}_field"), values.get(f"{letter}_values") or "") for letter in LETTERS]
    return [parse_axis(str(field), str(text)) for field, text in chosen if field]
