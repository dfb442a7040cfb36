"""An adapter put on the Hugging Face hub from the page: for the owner of this machine only, whose token it takes.

Anybody who can open the page can call any of its listeners, so each of them asks who owns the machine.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.errors import InvalidRequest, StudioError
from studio.services import Services
from tabs import controls
from tabs.handlers import SLOW, Updates, guarded

_WHAT = (
    "Puts it on the Hugging Face hub with a model card, in both layouts, with its preview and samples of its training. "
    "Your notes, and what its file tells of this machine, stay here. The token is that of HF_TOKEN or of hf auth login."
)


@dataclass(frozen=True, kw_only=True)
class AdapterPublish:
    """A closed section: where it goes, and who may see it."""

    services: Services
    picked_id: gr.State
    repository: gr.Textbox
    private: gr.Checkbox
    errors: Mapping[str, gr.HTML]
    button: gr.Button
    note: gr.HTML

    def on_publish(self, data: Mapping[Component, Any]) -> Iterator[Updates]:
        """Inputs: the adapter that shows, where it goes, who may see it. Outputs: that it is being sent; then where it
        is, or what is wrong."""
        yield {**self.tell("Sending it to the hub."), self.button: gr.Button(interactive=False)}
        try:
            address = self.published(data)
        except StudioError as error:
            yield self.tell(error=error)
            return
        yield self.tell(f"It is at {address}.")

    def published(self, data: Mapping[Component, Any]) -> str:
        """The address on the hub.

        Raises:
            StudioError: who asks is not the owner of this machine, or it cannot be sent.
        """
        if not self.services.settings.is_local:
            raise InvalidRequest("Only the owner of this machine may publish adapters.", "Ask them to.")
        if not data[self.picked_id]:
            raise InvalidRequest("No adapter is chosen.", "Choose one above.")
        where = str(data[self.repository] or "").strip()
        return self.services.publish(data[self.picked_id], where, is_private=data[self.private] is not False)

    def tell(self, note: str = "", error: StudioError | None = None) -> Updates:
        """A quiet line, or an error next to the control that it is about; whatever was told before goes."""
        updates: Updates = dict.fromkeys(self.errors.values(), controls.NO_ERROR)
        updates |= {self.note: controls.note(note) if note else "", self.button: gr.Button(interactive=True)}
        if error is not None:
            is_where = isinstance(error, InvalidRequest) and error.field == "repository"
            updates[self.errors["repository" if is_where else "publish"]] = controls.error_html(
                error.message, error.hint
            )
        return updates

    def wire(self) -> None:
        """The one thing that can be pressed."""
        inputs = {self.picked_id, self.repository, self.private}
        outputs = [*self.errors.values(), self.button, self.note]
        self.button.click(guarded(self.on_publish), inputs, outputs, **SLOW)


def build_publish(services: Services, picked_id: gr.State) -> AdapterPublish:
    """Lay the section out, closed."""
    errors: dict[str, gr.HTML] = {}
    with gr.Accordion("Publish it", open=False, visible=services.settings.is_local, elem_id="adapter-publish"):
        gr.HTML(controls.note(_WHAT), js_on_load=None)
        private = gr.Checkbox(True, label="Only I may see it, if it is new there", elem_id="publish-private")
        with gr.Row(elem_classes="named-row"):
            repository = gr.Textbox(
                label="Repository on the hub", placeholder="owner/name", max_lines=1, elem_id="publish-repository"
            )
            button = gr.Button("Publish", elem_id="publish-start", size="sm", min_width=88, scale=0)
        errors["repository"] = controls.build_error("publish_repository")
        errors["publish"] = controls.build_error("publish_it")
        note = gr.HTML("", elem_id="publish-note", elem_classes="slot", js_on_load=None)
    return AdapterPublish(
        services=services, picked_id=picked_id, repository=repository, private=private, errors=errors, button=button,
        note=note,
    )  # fmt: skip
