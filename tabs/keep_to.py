"""Among the settings of Generate: a picture whose edges or depth are kept to, by a ControlNet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component
from PIL import Image

from studio.domain.catalogue import Catalogue, Checkpoint, Control
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.steering import NO_CONTROL, USUAL_CONTROL_SCALE
from studio.sources import Sources
from studio.web.access import visitor_of
from tabs import controls
from tabs.handlers import QUIET, Updates, guarded

CONTROL_FIELDS = ("control", "control_image", "control_source", "control_scale")
FREE: Mapping[str, Any] = {
    "control": NO_CONTROL, "control_image": "", "control_source": "picture", "control_scale": USUAL_CONTROL_SCALE,
}  # fmt: skip
"""What a form says where nothing is kept to."""
EMPTY = "Draw what the prompt says along the edges of a picture of yours, or into its depth."
NONE_YET = "There is no ControlNet for this model yet."
_FORMATS = [".png", ".jpg", ".jpeg", ".webp"]
_SHOWN_PX = 512


@dataclass(frozen=True, kw_only=True)
class KeepTo:
    """The panel. `fields` are controls by the field of a request."""

    catalogue: Catalogue
    sources: Sources
    panel: gr.Accordion
    told: gr.HTML
    file: gr.File
    preview: gr.Image
    remove: gr.Button
    fields: Mapping[str, Any]

    @property
    def outputs(self) -> list[Component]:
        """Everything that `show` may set."""
        parts: list[Any] = [self.panel, self.told, self.file, self.preview, self.remove]
        return [*parts, *self.fields.values()]

    def show(self, values: Mapping[str, Any], checkpoint: Checkpoint, *, is_open: bool | None = None) -> Updates:
        """The panel for the `values` of a form, and what `checkpoint` has; one that it cannot use is left out."""
        values = {**FREE, **{name: values[name] for name in CONTROL_FIELDS if name in values}}
        rows = self.catalogue.controls_for(checkpoint)
        picture = self._opened(str(values["control_image"]))
        is_used = picture is not None and values["control"] in [row.id for row in rows]
        if not is_used:
            values = {**values, "control": NO_CONTROL, "control_image": ""}
        note = next((row.note for row in rows if row.id == values["control"]), EMPTY if rows else NONE_YET)
        updates: Updates = {self.fields[name]: values[name] for name in CONTROL_FIELDS}
        return {
            **updates,
            self.fields["control"]: gr.Dropdown(choices=_choices(rows), value=values["control"], interactive=is_used),
            self.panel: gr.Accordion(open=is_open or is_used) if is_open or is_used else gr.skip(),
            self.told: controls.note(note),
            self.file: gr.File(value=None, visible=not is_used, interactive=bool(rows)),
            self.preview: gr.Image(value=picture if is_used else None, visible=is_used),
            self.remove: gr.Button(visible=is_used),
        }

    def on_given(self, path: str | None, checkpoint_id: str, token: Any) -> Updates:
        """Inputs: an uploaded picture, the model, token. Outputs: the panel with it, and the first ControlNet that the
        model has."""
        if path is None:
            return {self.told: gr.skip()}
        checkpoint = self.catalogue.checkpoint(checkpoint_id)
        try:
            name = self.sources.take(path, visitor_of(token), "control_image")
        except InvalidRequest as error:
            return {self.told: controls.error_html(error.message, error.hint), self.file: None}
        first = next((row.id for row in self.catalogue.controls_for(checkpoint)), NO_CONTROL)
        return self.show({"control": first, "control_image": name}, checkpoint, is_open=True)

    def on_chosen(self, control: str, name: str, source: str, scale: float, checkpoint_id: str) -> Updates:
        """Inputs: the ControlNet and what it keeps to, the model. Outputs: the panel; without a picture for none."""
        values = {"control": control, "control_image": name, "control_source": source, "control_scale": scale}
        return self.show(values, self.catalogue.checkpoint(checkpoint_id), is_open=True)

    def on_remove(self, checkpoint_id: str) -> Updates:
        """Input: the model. Outputs: the panel without a picture."""
        return self.show(FREE, self.catalogue.checkpoint(checkpoint_id), is_open=True)

    def wire(self, model: Component, token: gr.BrowserState, settle: dict[str, Any]) -> None:
        """How the parts depend on each other; `settle` is the listener that keeps the settings."""
        chosen = [self.fields[name] for name in CONTROL_FIELDS]
        given = [self.file, model, token]
        self.file.upload(guarded(self.on_given), given, self.outputs, **QUIET).then(**settle)
        self.fields["control"].input(guarded(self.on_chosen), [*chosen, model], self.outputs, **QUIET).then(**settle)
        self.remove.click(guarded(self.on_remove), model, self.outputs, **QUIET).then(**settle)

    def _opened(self, name: str) -> Image.Image | None:
        try:
            image = self.sources.open(name) if name else None
        except NotFound:
            return None
        if image is not None:
            image.thumbnail((_SHOWN_PX, _SHOWN_PX), Image.Resampling.LANCZOS)
        return image


def _choices(rows: Sequence[Control]) -> list[controls.Choice]:
    return [("None — drawn freely", NO_CONTROL), *((row.title, row.id) for row in rows)]


def build_keep_to(
    catalogue: Catalogue, sources: Sources, checkpoint: Checkpoint, add: Callable[[str, Component], None]
) -> KeepTo:
    """Lay out the panel, closed; `add` takes each control with its field and lays out the place for its error."""
    fields: dict[str, Any] = {}

    def put(field: str, component: Component) -> None:
        fields[field] = component
        add(field, component)

    rows = catalogue.controls_for(checkpoint)
    with gr.Accordion("Keep to a shape — ControlNet", open=False, elem_id="keep-to") as panel:
        told = gr.HTML(
            controls.note(EMPTY if rows else NONE_YET), elem_id="keep-to-told", elem_classes="slot", js_on_load=None
        )
        file = gr.File(
            label="Drop a picture, or click to choose one", file_types=_FORMATS, height=112, elem_id="keep-to-file"
        )
        put("control_image", gr.Textbox("", visible=False, elem_id="control-image"))
        preview = gr.Image(
            type="pil", format="png", interactive=False, visible=False, buttons=[], height=192, show_label=False,
            alt_text="The picture that is kept to", elem_id="keep-to-preview",
        )  # fmt: skip
        put(
            "control",
            gr.Dropdown(
                _choices(rows), value=NO_CONTROL, filterable=False, interactive=False, **controls.common("control")
            ),
        )
        kinds = [("Picture", "picture"), ("Map", "map")]
        put("control_source", gr.Radio(kinds, value="picture", **controls.common("control_source")))
        put("control_scale", controls.build_slider("control_scale", USUAL_CONTROL_SCALE))
        remove = gr.Button("Keep to nothing", size="sm", visible=False, elem_id="keep-to-remove")
    return KeepTo(
        catalogue=catalogue, sources=sources, panel=panel, told=told, file=file, preview=preview, remove=remove,
        fields=fields,
    )  # fmt: skip
