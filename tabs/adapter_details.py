"""About an adapter: what its file says and whether it can be used, and for its owner what can be changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.adapter import AdapterEntry
from studio.domain.catalogue import Checkpoint
from studio.domain.errors import NotFound, StudioError
from studio.services import Services
from tabs import adapter_facts, controls
from tabs.adapter_change import AdapterChange, build_change
from tabs.adapter_into_model import AdapterIntoModel, build_into_model
from tabs.adapter_publish import AdapterPublish, build_publish
from tabs.handlers import FORM, Updates, guarded

NOTHING = "There is nothing to choose yet."


@dataclass(frozen=True, kw_only=True)
class AdapterDetails:
    """A closed section: which adapter, everything about it, and what its owner may change."""

    services: Services
    model: Any
    frame: gr.Accordion
    choice: gr.Dropdown
    facts: gr.HTML
    change: AdapterChange
    into_model: AdapterIntoModel
    publish: AdapterPublish

    @property
    def outputs(self) -> list[Component]:
        return [self.choice, self.facts, *self.change.outputs]

    def on_open(self, adapter_id: str | None, checkpoint_id: str | None) -> Updates:
        """Inputs: the adapter chosen before, the model. Outputs: what there is to choose, and that adapter; the first
        if none was chosen or it is gone."""
        entries = self.services.adapters.store.entries()
        chosen = next((entry for entry in entries if entry.id == adapter_id), entries[0] if entries else None)
        return {**self.show(chosen, checkpoint_id), self.choice: choices(entries, chosen and chosen.id)}

    def on_choice(self, adapter_id: str | None, checkpoint_id: str | None) -> Updates:
        """Inputs: an adapter, the model. Outputs: everything about it."""
        try:
            entry = self.services.adapters.store.get(adapter_id or "")
        except NotFound as error:  # removed elsewhere
            return {**self.change.fill(None), self.facts: controls.error_html(error.message, error.hint)}
        return self.show(entry, checkpoint_id)

    def on_change(self, adapter_id: str | None, checkpoint_id: str | None) -> Updates:
        """Inputs: the adapter that shows, the model. Outputs: what there is to choose now, and its facts."""
        entries = self.services.adapters.store.entries()
        entry = next((entry for entry in entries if entry.id == adapter_id), None)
        facts = self.about(entry, checkpoint_id) if entry else ""
        return {self.choice: choices(entries, entry and entry.id), self.facts: facts}

    def on_model(self, adapter_id: str | None, checkpoint_id: str | None) -> Any:
        """Inputs: the adapter that shows, the model. Output: the facts, with the verdict for that model."""
        try:
            entry = self.services.adapters.store.get(adapter_id) if adapter_id else None
        except NotFound as error:
            return controls.error_html(error.message, error.hint)
        return self.about(entry, checkpoint_id) if entry else gr.skip()

    def show(self, entry: AdapterEntry | None, checkpoint_id: str | None) -> Updates:
        """Everything about `entry`, and its controls."""
        facts = self.about(entry, checkpoint_id) if entry else controls.note(NOTHING)
        return {self.facts: facts, **self.change.fill(entry)}

    def about(self, entry: AdapterEntry, checkpoint_id: str | None) -> str:
        """The verdict, the preview and the facts (HTML)."""
        adapters, catalogue = self.services.adapters, self.services.catalogue
        if entry.adapter is None:
            return controls.error_html(entry.problem)
        checkpoint = catalogue.checkpoint(checkpoint_id or catalogue.default_checkpoint)
        try:
            entry, keys = adapters.store.inspect(entry.id), adapters.store.keys(entry.id)
        except StudioError as error:
            return controls.error_html(error.message, error.hint)
        picture = adapter_facts.picture(entry, adapters.preview_version(entry.id))
        facts = adapter_facts.facts_html(entry, keys, is_owner=self.services.settings.is_local)
        return f'<div class="adapter-about">{self.verdict(entry, checkpoint)}{picture}{facts}</div>'

    def verdict(self, entry: AdapterEntry, checkpoint: Checkpoint) -> str:
        """Whether it can be used with `checkpoint` (HTML), or why that cannot be told."""
        try:
            verdict = self.services.adapters.verdict(entry.id, checkpoint)
        except StudioError as error:
            return controls.warning_html(str(error))
        return adapter_facts.verdict_html(verdict, checkpoint, entry.adapter.notes if entry.adapter else ())

    def wire(self, shown_id: gr.State, cards: dict[str, Any]) -> None:
        """`shown_id` is the picture on the stage; `cards` is the listener that shows the cards as they are now."""
        picked = [self.change.picked_id, self.model]
        self.frame.expand(guarded(self.on_open), picked, self.outputs, **FORM)
        self.choice.input(guarded(self.on_choice), [self.choice, self.model], self.outputs, **FORM)
        self.model.change(guarded(self.on_model), picked, self.facts, trigger_mode="always_last", **FORM)
        if self.services.settings.is_local:
            self.change.wire(shown_id, self.again, cards)
            self.into_model.wire()
            self.publish.wire()

    @property
    def again(self) -> dict[str, Any]:
        """A listener that shows what there is to choose and the facts, after something has changed."""
        picked = [self.change.picked_id, self.model]
        return {"fn": guarded(self.on_change), "inputs": picked, "outputs": [self.choice, self.facts], **FORM}


def build_details(services: Services, prompt: gr.Textbox, model: gr.Dropdown) -> AdapterDetails:
    """Lay the section out, closed."""
    with gr.Accordion("About an adapter", open=False, elem_id="adapter-details") as frame:
        choice = gr.Dropdown(label="Adapter", elem_id="adapter-choice")
        facts = gr.HTML("", elem_id="adapter-facts", js_on_load=None)
        change = build_change(services, prompt)
        into_model = build_into_model(services, change.picked_id, model)
        publish = build_publish(services, change.picked_id)
    return AdapterDetails(
        services=services, model=model, frame=frame, choice=choice, facts=facts, change=change, into_model=into_model,
        publish=publish,
    )  # fmt: skip


def choices(entries: Sequence[AdapterEntry], chosen_id: str | None) -> Any:
    """The adapters to choose from."""
    return gr.Dropdown(choices=[(_label(entry), entry.id) for entry in entries], value=chosen_id)


def _label(entry: AdapterEntry) -> str:
    return entry.title if entry.title == entry.id else f"{entry.title} — {entry.id}"
