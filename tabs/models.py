"""Under "Models" on the System tab: a checkpoint of one's own, picked by its path on this machine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.domain.errors import StudioError
from studio.services import Services
from tabs import controls
from tabs.handlers import QUIET, Updates, guarded

LABEL = "Path of a checkpoint on this machine"
HELP = "A diffusers folder or a .safetensors file; it stays where it is."


@dataclass(frozen=True, kw_only=True)
class ModelsPanel:
    """The path, its button, and what became of it."""

    services: Services
    path: gr.Textbox
    add: gr.Button
    note: gr.HTML

    def on_add_model(self, path: str | None) -> Updates:
        """Input: a path. Outputs: what became of it, and an empty field for the next."""
        if not self.services.settings.is_local:
            return {self.note: gr.skip()}
        try:
            added = self.services.own_checkpoints.add(_unquoted(path or ""))
        except StudioError as error:
            return {self.note: controls.error_html(error.message, error.hint)}
        return {self.note: controls.note(added.message), self.path: ""}

    def wire(self, show: dict[str, Any], offer: Callable[[], Updates], choice: Any) -> None:
        """After an addition, `show` fills the tables of the tab anew and `offer` the models in `choice`."""
        if not self.services.settings.is_local:
            return
        added = gr.on(
            [self.add.click, self.path.submit], guarded(self.on_add_model), self.path, [self.note, self.path], **QUIET
        )
        # Not "once", the usual: the tables of an earlier addition may still be on their way, and would be the last.
        last: dict[str, Any] = {"trigger_mode": "always_last"}
        added.then(**show, **last).then(guarded(offer), None, choice, **QUIET, **last)


def build_models(services: Services) -> ModelsPanel:
    """Lay out the field. Only the owner of this machine has it: a path would tell a stranger what lies there."""
    with gr.Column(visible=services.settings.is_local, elem_id="add-model"):
        with gr.Row(elem_classes=["search-row", "named-row"]):
            path = gr.Textbox(label=LABEL, info=HELP, elem_id="model-path", scale=4, min_width=200)
            add = gr.Button("Add", elem_id="model-add", size="sm", scale=0, min_width=96)
        note = gr.HTML("", elem_id="model-add-note", elem_classes="slot", js_on_load=None)
    return ModelsPanel(services=services, path=path, add=add, note=note)


def _unquoted(path: str) -> str:
    """A path as file managers and shells hand it over, without the quotes around it."""
    text = path.strip()
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if is_quoted else text
