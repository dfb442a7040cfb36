"""An adapter worked into the model that is chosen, on the page: for the owner of this machine only.

Anybody who can open the page can call any of its listeners, so each of them asks who owns the machine.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.adapter import MAX_LORA_SCALE
from studio.domain.errors import InvalidRequest, StudioError
from studio.domain.tags import AdapterUse
from studio.services import Services
from tabs import controls
from tabs.handlers import SLOW, Updates, guarded

_WHAT = (
    "Writes the model that is chosen under Generate anew, with this adapter in its weights, as a model of your own. It "
    "draws the same without the tag, takes as much room as the model, and the model stays as it is."
)


@dataclass(frozen=True, kw_only=True)
class AdapterIntoModel:
    """A closed section: how much of the adapter, and what the new model is called."""

    services: Services
    picked_id: gr.State
    model: gr.Dropdown
    lora_scale: gr.Number
    name: gr.Textbox
    errors: Mapping[str, gr.HTML]
    button: gr.Button
    note: gr.HTML

    def on_merge(self, data: Mapping[Component, Any]) -> Iterator[Updates]:
        """Inputs: the adapter that shows, the model, how much, a name. Outputs: that it is being done; then the models
        to choose from, with the new one, or what is wrong beside its field."""
        yield {**self.tell("Writing; a large model takes a minute or two."), self.button: gr.Button(interactive=False)}
        try:
            message = self.merged(data)
        except StudioError as error:
            yield self.tell(error=error)
            return
        choices = controls.checkpoint_choices(self.services.catalogue)
        yield {**self.tell(message), self.model: gr.Dropdown(choices=choices), self.name: ""}

    def merged(self, data: Mapping[Component, Any]) -> str:
        """What to tell of the new model.

        Raises:
            StudioError: who asks is not the owner of this machine, or it cannot be made.
        """
        if not self.services.settings.is_local:
            raise InvalidRequest("Only the owner of this machine may make models.", "Ask them to.")
        if not data[self.picked_id]:
            raise InvalidRequest("No adapter is chosen.", "Choose one above.")
        scale = data[self.lora_scale]
        if not isinstance(scale, int | float) or not abs(scale) <= MAX_LORA_SCALE:
            bounds = f"{-MAX_LORA_SCALE:g} to {MAX_LORA_SCALE:g}"
            raise InvalidRequest("There is no such scale.", f"Give a number from {bounds}.", "lora_scale")
        use = AdapterUse(adapter=data[self.picked_id], lora_scale=scale)
        model = data[self.model] or self.services.catalogue.default_checkpoint
        return self.services.checkpoint_merging.merge(model, [use], data[self.name] or "").message

    def tell(self, note: str = "", error: StudioError | None = None) -> Updates:
        """A quiet line, or an error next to the control that it is about; whatever was told before goes."""
        updates: Updates = dict.fromkeys(self.errors.values(), controls.NO_ERROR)
        updates |= {self.note: controls.note(note) if note else "", self.button: gr.Button(interactive=True)}
        if error is not None:
            field = (error.field if isinstance(error, InvalidRequest) else "") or "merge"
            updates[self.errors[field]] = controls.error_html(error.message, error.hint)
        return updates

    def wire(self) -> None:
        """The one thing that can be pressed."""
        inputs = {self.picked_id, self.model, self.lora_scale, self.name}
        outputs = [*self.errors.values(), self.button, self.note, self.name, self.model]
        self.button.click(guarded(self.on_merge), inputs, outputs, **SLOW)


def build_into_model(services: Services, picked_id: gr.State, model: gr.Dropdown) -> AdapterIntoModel:
    """Lay the section out, closed. Guests do not have it: a model fills the disk."""
    errors: dict[str, gr.HTML] = {}
    with gr.Accordion(
        "Work it into the model", open=False, visible=services.settings.is_local, elem_id="adapter-into-model"
    ):
        gr.HTML(controls.note(_WHAT), js_on_load=None)
        lora_scale = gr.Number(
            1, step=0.1, label="How much of it — scale", elem_id="into-scale",
            info=f"1 is as it was trained; {-MAX_LORA_SCALE:g} to {MAX_LORA_SCALE:g}.",
        )  # fmt: skip
        errors["lora_scale"] = controls.build_error("into_scale")
        with gr.Row(elem_classes="named-row"):
            name = gr.Textbox(label="Name of the new model", elem_id="into-name")
            button = gr.Button("Make it", elem_id="into-start", size="sm", min_width=88, scale=0)
        errors["name"] = controls.build_error("into_name")
        errors["merge"] = controls.build_error("into_model")
        note = gr.HTML("", elem_id="into-note", elem_classes="slot", js_on_load=None)
    return AdapterIntoModel(
        services=services, picked_id=picked_id, model=model, lora_scale=lora_scale, name=name, errors=errors,
        button=button, note=note,
    )  # fmt: skip
