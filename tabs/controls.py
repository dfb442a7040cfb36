"""Controls made from the fields of a request: bounds, label and help text are written there, once."""

import html
from typing import Any

import gradio as gr

from studio.domain.catalogue import Accelerator, Catalogue, Checkpoint
from studio.domain.request import NO_ACCELERATOR, RANDOM_SEED, bounds, home_of

Choice = tuple[str, str]

GUIDANCE_OFF = "Has no effect now: guidance is off. Raise it above 1 to use this."
NO_ERROR = ""


def title(field: str) -> str:
    """The label of a field's control."""
    return home_of(field).model_fields[field].title or field


def help_text(field: str) -> str:
    return home_of(field).model_fields[field].description or ""


def element_id(field: str) -> str:
    """The id of a field's control in the page."""
    return field.replace("_", "-")


def common(field: str) -> dict[str, Any]:
    """What every control of a field is given."""
    return {"label": title(field), "info": help_text(field), "elem_id": element_id(field)}


def build_slider(field: str, value: float) -> gr.Slider:
    """A slider with the bounds of a numeric field."""
    low, high, step = bounds(field)
    return gr.Slider(minimum=low or 0, maximum=high or 100, step=step or 1, value=value, buttons=[], **common(field))


def build_size(field: str, checkpoint: Checkpoint) -> gr.Slider:
    """A slider for width or height with the limits of `checkpoint`."""
    _, _, step = bounds(field)
    return gr.Slider(
        minimum=checkpoint.min_size,
        maximum=checkpoint.max_size,
        step=step or 8,
        value=checkpoint.native_size,
        buttons=[],
        **common(field),
    )


def build_choice(field: str, choices: list[Choice], value: str) -> gr.Dropdown:
    """A dropdown over rows of the catalogue."""
    return gr.Dropdown(choices=choices, value=value, filterable=False, **common(field))


def build_accelerator(catalogue: Catalogue, checkpoint: Checkpoint) -> gr.Dropdown:
    return accelerator_for(catalogue, checkpoint, NO_ACCELERATOR, filterable=False, **_without_info("accelerator"))


def accelerator_for(catalogue: Catalogue, checkpoint: Checkpoint, value: str, **changes: Any) -> gr.Dropdown:
    """The accelerators of `checkpoint`; switched off with its reason where there is none."""
    choices = accelerator_choices(catalogue, checkpoint)
    has_any = len(choices) > 1
    info = help_text("accelerator") if has_any else f"There is none for {checkpoint.title} yet."
    return gr.Dropdown(choices=choices, value=value, interactive=has_any, info=info, **changes)


def build_prompt() -> gr.Textbox:
    # lines > 1: Enter makes a new line and Ctrl+Enter generates (assets/keys.js).
    return gr.Textbox(lines=3, max_lines=8, autofocus=True, placeholder=help_text("prompt"), **_without_info("prompt"))


def build_negative_prompt() -> gr.Textbox:
    return gr.Textbox(lines=2, max_lines=6, **common("negative_prompt"))


def negative_prompt_for(guidance_scale: float | None, **changes: Any) -> gr.Textbox:
    """The negative prompt, switched off with its reason while guidance is off."""
    is_used = guidance_scale is not None and guidance_scale > 1
    help_now = help_text("negative_prompt") if is_used else GUIDANCE_OFF
    return gr.Textbox(interactive=is_used, info=help_now, **changes)


def build_seed() -> gr.Number:
    # No minimum or maximum here: the request checks them, and its sentence stands next to the control.
    return gr.Number(value=RANDOM_SEED, precision=0, **_without_info("seed"))


def build_error(field: str) -> gr.HTML:
    """The place under a control where its error stands."""
    return gr.HTML(NO_ERROR, elem_id=f"{element_id(field)}-error", elem_classes="slot", js_on_load=None)


def error_html(message: str, hint: str = "") -> str:
    """An error for a person who looks at a control."""
    return f'<p class="field-error" role="alert">{html.escape(f"{message} {hint}".strip())}</p>'


def warning_html(text: str) -> str:
    return f'<p class="field-warning">{html.escape(text)}</p>'


def note(text: str) -> str:
    """One quiet line (HTML)."""
    return f'<p class="note quiet">{html.escape(text)}</p>'


def checkpoint_choices(catalogue: Catalogue) -> list[Choice]:
    return [(_with_download(row), row.id) for row in catalogue.checkpoints]


def scheduler_choices(catalogue: Catalogue) -> list[Choice]:
    return [(f"{row.title} — {row.note}", row.id) for row in catalogue.schedulers]


def accelerator_choices(catalogue: Catalogue, checkpoint: Checkpoint) -> list[Choice]:
    """None, and those that were made for `checkpoint`, with what they may be used for."""
    rows = catalogue.accelerators_for(checkpoint)
    return [("None — the model as it is", NO_ACCELERATOR), *((_with_licence(row), row.id) for row in rows)]


def decoder_choices() -> list[Choice]:
    return [
        ("Full — the model's own", "full"),
        ("Half — in half precision, twice as fast", "half"),
        ("Tiny — rougher, faster still", "tiny"),
    ]


def style_choices(catalogue: Catalogue, checkpoint: Checkpoint) -> list[Choice]:
    return [(row.title, row.id) for row in catalogue.styles_for(checkpoint)]


def shape_choices(checkpoint: Checkpoint) -> list[Choice]:
    """Square, portrait and landscape at the native size of `checkpoint`, as (label, "width x height")."""
    long = checkpoint.native_size
    short = long * 3 // 4 // 8 * 8
    sizes = {"Square": (long, long), "Portrait": (short, long), "Landscape": (long, short)}
    return [(f"{name} {width}\u00a0×\u00a0{height}", f"{width}x{height}") for name, (width, height) in sizes.items()]


def shape_of(width: float | None, height: float | None, checkpoint: Checkpoint) -> str | None:
    """The shape button that stands for a size; None for a size of its own."""
    shape = f"{width:g}x{height:g}" if width and height else None
    return shape if shape in [value for _, value in shape_choices(checkpoint)] else None


def checkpoint_note(checkpoint: Checkpoint) -> str:
    """What the model understands, what it may be used for and what it needs (HTML)."""
    needs = f"download {checkpoint.download_gb:g} GB, once" if checkpoint.download_gb else "no download"
    facts = f"Licence {checkpoint.licence} · native size {checkpoint.native_size} px · {needs}"
    return f'<p class="note">{html.escape(checkpoint.note)}</p>{note(facts)}'


def _with_download(row: Checkpoint) -> str:
    return f"{row.title} — download {row.download_gb:g} GB" if row.download_gb else row.title


def _with_licence(row: Accelerator) -> str:
    use = "" if row.is_commercial else ", not for commercial use"
    return f"{row.title} — {row.licence}{use}"


def _without_info(field: str) -> dict[str, Any]:
    return {name: value for name, value in common(field).items() if name != "info"}
