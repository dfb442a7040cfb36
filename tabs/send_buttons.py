"""The buttons that lead from a picture to the next one; `tabs.send_to` says what they do."""

from dataclasses import dataclass

import gradio as gr


@dataclass(frozen=True, kw_only=True)
class Sends:
    """The three buttons."""

    start: gr.Button
    part: gr.Button
    larger: gr.Button


def build_sends(prefix: str) -> Sends:
    """The buttons, in whatever row is open; `prefix` begins their ids."""
    names = {"start": "Start from this picture", "part": "Change a part", "larger": "Larger"}
    return Sends(
        **{name: gr.Button(text, elem_id=f"{prefix}-{name}", size="sm", min_width=96) for name, text in names.items()}
    )
