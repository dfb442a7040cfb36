"""Under the prompt of Generate: a picture to begin from, which part of it may change, and how far it goes on beyond its
edges; and, among the settings, the second pass that makes a picture larger."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component
from PIL import Image

from studio.domain.beginning import BORDERS, NO_HIRES, SOURCE_FIELDS
from studio.domain.catalogue import Checkpoint
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.request import GenerationRequest
from studio.fitting import room_for, usual_size
from studio.settings import Settings
from studio.sources import Sources
from studio.web.access import visitor_of
from tabs import controls
from tabs.handlers import Updates

PICTURE_FIELDS = ("init_image", "mask", "strength", "mask_blur", "resize_mode", *BORDERS)
HIRES_FIELDS = ("hires_scale", "hires_strength", "hires_steps", "hires_upscaler")
NO_EFFECT = "Has no effect now: the enlargement is 1. Raise it to use this."
EMPTY = "Draw over a picture of yours, change a part of it, or let it go on beyond its edges."
HOW = "Paint over what is to change and the rest keeps every pixel; paint nothing, and all of it may change."
_FORMATS = [".png", ".jpg", ".jpeg", ".webp"]
_SHOWN_PX = 1024
"""Longer side of what is painted on: larger ones make a browser slow, and a mask may be smaller than its picture."""
_PAINT, _PAINT_CSS = (99, 102, 241, 170), "#6366f1aa"

AddField = Callable[[str, Component], None]


@dataclass(frozen=True, kw_only=True)
class PictureIn:
    """The panel. `fields` are controls by the field of a request."""

    sources: Sources
    settings: Settings
    panel: gr.Accordion
    file: gr.File
    told: gr.HTML
    given: gr.Column
    editor: gr.ImageEditor
    remove: gr.Button
    fields: Mapping[str, Any]

    @property
    def outputs(self) -> list[Component]:
        """Everything that `show` may set."""
        parts: list[Any] = [self.panel, self.file, self.told, self.given, self.editor]
        return [*parts, *self.fields.values()]

    def stay(self) -> Updates:
        """Nothing of it changes."""
        return dict.fromkeys(self.outputs, gr.skip())

    def show(self, values: Mapping[str, Any], note: str = "", *, is_open: bool | None = None) -> Updates:
        """The panel for the `values` of a form, whose pictures must be here; empty where they name none. `note` is said
        in it, and `is_open` opens or closes it."""
        name, mask = values.get("init_image") or "", values.get("mask") or ""
        shown = self._painted_on(name, mask) if name else None
        how = controls.note(note or HOW) if name else controls.note(EMPTY)
        updates: Updates = {self.fields[field]: values[field] for field in PICTURE_FIELDS if field in values}
        return {
            **dict.fromkeys(self.outputs, gr.skip()),
            **updates,
            self.panel: gr.Accordion(open=bool(name) if is_open is None else is_open),
            self.file: gr.File(value=None, visible=not name),
            self.told: how,
            self.given: gr.Column(visible=bool(name)),
            self.editor: shown,
        }

    def usable(self, values: Mapping[str, Any], visitor: str) -> bool:
        """Whether the pictures that `values` name are here, and this visitor's own where a page is shared."""
        names = [str(values[field]) for field in SOURCE_FIELDS if values.get(field)]
        try:
            for name in names:
                self.sources.open(name)
        except NotFound:
            return False
        return self.settings.is_local or all(self.sources.is_of(visitor, name) for name in names)

    def check_own(self, request: GenerationRequest, visitor: str) -> None:
        """Refuse what `usable` says no to; where a page is one's own, the service says what is missing.

        Raises:
            InvalidRequest: naming the picture.
        """
        if not self.settings.is_local and not self.usable(request.model_dump(), visitor):
            raise InvalidRequest("The picture to start from is not one of yours.", "Choose it again.", "init_image")

    def size(self, name: str, checkpoint: Checkpoint) -> dict[str, int]:
        """Width and height at which `checkpoint` draws over the kept picture `name`; {} where it is gone."""
        try:
            source = self.sources.open(name)
        except NotFound:
            return {}
        room = room_for(checkpoint, (0, 0, 0, 0))
        width, height = usual_size(source.size, checkpoint.min_size, room)
        return {"width": width, "height": height}

    def take(self, path: str, token: Any) -> str:
        """Keep an uploaded picture; gives its name. Raises InvalidRequest where it is none."""
        return self.sources.take(path, visitor_of(token))

    def on_painted(self, painted: Any, name: str | None, token: Any) -> str:
        """Inputs: what the editor holds, the picture to begin from, token. Output: the mask of what was painted, or ""
        where nothing was."""
        layers = painted.get("layers") if isinstance(painted, dict) else None
        if not name or not layers:
            return ""
        is_painted = np.asarray(layers[0].convert("RGBA").getchannel("A")) > 0
        if not is_painted.any():
            return ""
        mask = Image.fromarray(np.where(is_painted, 255, 0).astype(np.uint8))
        return self.sources.take(mask, visitor_of(token), "mask")

    def on_cleared(self, name: str | None) -> Any:
        """Input: the picture to begin from. Output: the editor with it, unpainted: what its bin means here."""
        return self._painted_on(name, "") if name else None

    def _painted_on(self, name: str, mask: str) -> dict[str, Any]:
        image = self.sources.open(name)
        image.thumbnail((_SHOWN_PX, _SHOWN_PX), Image.Resampling.LANCZOS)
        layers: list[Image.Image] = []
        if mask:
            white = self.sources.open(mask).convert("L").resize(image.size, Image.Resampling.NEAREST)
            layers = [Image.composite(Image.new("RGBA", image.size, _PAINT), Image.new("RGBA", image.size), white)]
        return {"background": image, "layers": layers, "composite": image}


def hires_for(scale: float | None) -> list[Any]:
    """Strength, steps and upscaler of the second pass, switched off with the reason while there is none."""
    is_used = scale is not None and scale > NO_HIRES
    kinds = {"hires_strength": gr.Slider, "hires_steps": gr.Slider, "hires_upscaler": gr.Radio}
    infos = {field: controls.help_text(field) if is_used else NO_EFFECT for field in kinds}
    return [kind(interactive=is_used, info=infos[field]) for field, kind in kinds.items()]


def default_of(field: str) -> Any:
    """What a request says of a field unless somebody does."""
    return GenerationRequest.model_fields[field].default


def build_picture_in(sources: Sources, settings: Settings, add: AddField) -> PictureIn:
    """Lay out the panel, closed; `add` takes each control with its field and lays out the place for its error."""
    fields: dict[str, Any] = {}

    def put(field: str, component: Component) -> None:
        fields[field] = component
        add(field, component)

    with gr.Accordion("Start from a picture", open=False, elem_id="start") as panel:
        file = gr.File(
            label="Drop a picture, or click to choose one", file_types=_FORMATS, height=112, elem_id="start-file"
        )
        put("init_image", gr.Textbox("", visible=False, elem_id="init-image"))
        told = gr.HTML(controls.note(EMPTY), elem_id="start-told", elem_classes="slot", js_on_load=None)
        with gr.Column(visible=False, elem_id="start-given") as given:
            editor = gr.ImageEditor(
                type="pil", image_mode="RGBA", format="png", sources=(), transforms=(), layers=False, buttons=[],
                brush=gr.Brush(default_size="auto", colors=[_PAINT_CSS], default_color=_PAINT_CSS, color_mode="fixed"),
                label="Paint here", height=360, elem_id="start-editor",
            )  # fmt: skip
            put("mask", gr.Textbox("", visible=False, elem_id="mask"))
            remove = gr.Button("Do without a picture", size="sm", elem_id="start-remove")
            put("strength", controls.build_slider("strength", default_of("strength")))
            with gr.Accordion("Edges — what to add, how it fades", open=False, elem_id="start-edges"):
                _build_edges(put)
    return PictureIn(
        sources=sources, settings=settings, panel=panel, file=file, told=told, given=given, editor=editor,
        remove=remove, fields=fields,
    )  # fmt: skip


def _build_edges(put: AddField) -> None:
    for pair in (BORDERS[:2], BORDERS[2:]):
        with gr.Row():
            numbers = {border: _build_border(border) for border in pair}
        for border, number in numbers.items():
            put(border, number)
    gr.HTML(controls.note(controls.help_text(BORDERS[0])), elem_classes="below", js_on_load=None)
    modes = [("Crop", "crop"), ("Stretch", "stretch"), ("Fill", "fill")]
    put("resize_mode", gr.Radio(modes, value="crop", **controls.common("resize_mode")))
    put("mask_blur", controls.build_slider("mask_blur", default_of("mask_blur")))


def _build_border(field: str) -> gr.Number:
    return gr.Number(
        0,
        precision=0,
        step=8,
        min_width=120,
        label=controls.title(field),
        elem_id=controls.element_id(field),
    )


def build_hires(add: AddField) -> gr.Accordion:
    """Lay out the controls of the second pass, closed."""
    with gr.Accordion("Larger and sharper — second pass", open=False, elem_id="hires") as panel:
        add("hires_scale", controls.build_slider("hires_scale", default_of("hires_scale")))
        off = {"interactive": False, "info": NO_EFFECT}
        for field in ("hires_strength", "hires_steps"):
            slider = controls.build_slider(field, default_of(field))
            slider.interactive, slider.info = False, NO_EFFECT
            add(field, slider)
        upscalers = [("Lanczos", "lanczos"), ("Latent", "latent")]
        radio = {**controls.common("hires_upscaler"), **off}
        add("hires_upscaler", gr.Radio(upscalers, value=default_of("hires_upscaler"), **radio))
    return panel
