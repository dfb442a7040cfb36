"""What the owner of this machine may change of an adapter: its card, its name, its preview; and its removal.

Anybody who can open the page can call any of its listeners, so each of them asks who owns the machine.
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.adapter import MAX_LORA_SCALE, AdapterEntry
from studio.domain.errors import InvalidRequest, StudioError
from studio.domain.tags import AdapterUse, adapters_named, without_adapter
from studio.services import Services
from tabs import controls
from tabs.handlers import QUIET, Updates, guarded

_PICTURES = [".png", ".jpg", ".jpeg", ".webp"]
"""What can become a preview."""


@dataclass(frozen=True, kw_only=True)
class AdapterChange:
    """The closed section with its controls; `picked_id` is the adapter that they are about."""

    services: Services
    prompt: gr.Textbox
    picked_id: gr.State
    frame: gr.Accordion
    card: Mapping[str, Component]
    name: gr.Textbox
    errors: Mapping[str, gr.HTML]
    buttons: Mapping[str, Any]
    confirm: gr.Row
    question: gr.HTML
    note: gr.HTML

    @property
    def outputs(self) -> list[Component]:
        """Everything that `fill` and the listeners may set, apart from the prompt."""
        parts: list[Any] = [self.picked_id, self.frame, *self.card.values(), self.name, *self.errors.values()]
        parts += [self.confirm, self.question, self.note]
        return parts

    def fill(self, entry: AdapterEntry | None, note: str = "") -> Updates:
        """Set every control from what is kept of `entry`; None hides them all."""
        updates: Updates = self.tell(note)
        updates |= {self.picked_id: entry and entry.id, self.frame: gr.Accordion(visible=self.may_change(entry))}
        if entry is None:
            return updates
        own_title = entry.adapter.title if entry.adapter else entry.id
        return updates | {
            self.card["title"]: gr.Textbox(value=entry.card.title or "", placeholder=own_title),
            self.card["trigger_words"]: ", ".join(entry.trigger_words),
            self.card["lora_scale"]: entry.card.lora_scale,
            self.card["notes"]: entry.card.notes,
            self.name: entry.id,
        }

    def may_change(self, entry: AdapterEntry | None) -> bool:
        return entry is not None and self.services.settings.is_local

    def tell(self, note: str = "", error: StudioError | None = None, field: str = "") -> Updates:
        """A quiet line, or an error next to the control of `field`; whatever was told before goes."""
        updates: Updates = dict.fromkeys(self.errors.values(), controls.NO_ERROR)
        updates |= {self.note: controls.note(note) if note else "", self.confirm: gr.Row(visible=False)}
        if error is not None:
            updates[self.errors[field]] = controls.error_html(error.message, error.hint)
        return updates

    def owned(self, adapter_id: str | None) -> AdapterEntry:
        """The adapter that is to be changed.

        Raises:
            InvalidRequest: who asks is not the owner of this machine, or no adapter was chosen.
            NotFound: it is gone.
        """
        if not self.services.settings.is_local:
            raise InvalidRequest("Only the owner of this machine may change adapters.", "Ask them to.")
        if not adapter_id:
            raise InvalidRequest("No adapter is chosen.", "Choose one above.")
        return self.services.adapters.store.get(adapter_id)

    def on_save(self, data: Mapping[Component, Any]) -> Updates:
        """Inputs: the adapter and its card. Outputs: the card as it is kept, or the error next to its field."""
        try:
            entry = self.owned(data[self.picked_id])
            typed = {name: data[field] for name, field in self.card.items()}
            return self.fill(self.services.adapters.edit(entry.id, typed), "Saved.")
        except StudioError as error:
            field = (error.field or "") if isinstance(error, InvalidRequest) else ""
            return self.tell(error=error, field=field if field in self.card else "notes")

    def on_rename(self, adapter_id: str | None, name: str, prompt: str | None) -> Updates:
        """Inputs: the adapter, another name, the prompt. Outputs: the adapter under that name, also in the prompt."""
        try:
            old = self.owned(adapter_id)
            if not name.strip():
                raise InvalidRequest("There is no name.", "Write the one that prompts shall use.")
            new = self.services.adapters.store.rename(old.id, name)
        except StudioError as error:
            return self.tell(error=error, field="name")
        return {**self.fill(new, "Renamed."), self.prompt: renamed_in(prompt or "", old.id, new.id)}

    def on_shown(self, adapter_id: str | None, image_id: str | None) -> Updates:
        """Inputs: the adapter, the picture on the stage. Outputs: the adapter with a small copy as its preview."""
        try:
            entry, gallery = self.owned(adapter_id), self.services.gallery
            if not image_id:
                raise InvalidRequest("No picture is shown.", "Make one, or choose a file.")
            self.services.adapters.set_preview(entry.id, gallery.path(gallery.image(image_id)))
        except StudioError as error:
            return self.tell(error=error, field="preview")
        return self.tell("The picture is its preview.")

    def on_picture(self, adapter_id: str | None, path: str | None) -> Updates:
        """Inputs: the adapter, a picture. Outputs: the adapter with a small copy as its preview."""
        try:
            entry = self.owned(adapter_id)
            if path is None:
                return self.tell()
            self.services.adapters.set_preview(entry.id, Path(path))
        except StudioError as error:
            return self.tell(error=error, field="preview")
        return self.tell("The picture is its preview.")

    def on_drop_preview(self, adapter_id: str | None) -> Updates:
        """Input: the adapter. Outputs: it has no preview."""
        try:
            self.services.adapters.store.set_preview(self.owned(adapter_id).id, None)
        except StudioError as error:
            return self.tell(error=error, field="preview")
        return self.tell("It has no preview.")

    def on_ask(self, adapter_id: str | None) -> Updates:
        """Input: the adapter. Outputs: the question whether to remove it."""
        try:
            title = self.owned(adapter_id).title
        except StudioError as error:
            return self.tell(error=error, field="remove")
        question = f"<p>Remove “{html.escape(title)}” and its file for good?</p>"
        return {**self.tell(), self.confirm: gr.Row(visible=True), self.question: question}

    def on_remove(self, adapter_id: str | None, prompt: str | None) -> Updates:
        """Inputs: the adapter, the prompt. Outputs: no adapter is chosen, and the prompt does not name it."""
        try:
            entry = self.owned(adapter_id)
            self.services.adapters.store.remove(entry.id)
        except StudioError as error:
            return self.tell(error=error, field="remove")
        text = prompt or ""
        left = without_adapter(text, entry.id) if entry.id in named_in(text) else text
        return {**self.fill(None, f"{entry.title} is removed."), self.prompt: left}

    def wire(self, shown_id: gr.State, facts: Mapping[str, Any], cards: Mapping[str, Any]) -> None:
        """`shown_id` is the picture on the stage; `facts` and `cards` are listeners that show them as they are now."""
        picked, outputs = self.picked_id, self.outputs
        with_prompt = [*outputs, self.prompt]
        press = {name: button.click for name, button in self.buttons.items()}
        changes = [
            press["save"](guarded(self.on_save), {picked, *self.card.values()}, outputs, **QUIET),
            press["rename"](guarded(self.on_rename), [picked, self.name, self.prompt], with_prompt, **QUIET),
            press["shown"](guarded(self.on_shown), [picked, shown_id], outputs, **QUIET),
            self.buttons["file"].upload(guarded(self.on_picture), [picked, self.buttons["file"]], outputs, **QUIET),
            press["no_preview"](guarded(self.on_drop_preview), picked, outputs, **QUIET),
            press["yes"](guarded(self.on_remove), [picked, self.prompt], with_prompt, **QUIET),
        ]
        for change in changes:
            change.then(**facts).then(**cards)
        press["remove"](guarded(self.on_ask), picked, outputs, **QUIET)
        press["no"](lambda: gr.Row(visible=False), None, self.confirm, **QUIET)


def renamed_in(prompt: str, old: str, new: str) -> str:
    """`prompt` with the adapter `old` under its `new` name, at the end; one that does not name it stays as it is."""
    use = named_in(prompt).get(old)
    return f"{without_adapter(prompt, old)} {use.model_copy(update={'adapter': new}).tag}".strip() if use else prompt


def named_in(prompt: str) -> dict[str, AdapterUse]:
    """The adapters that `prompt` names, by id; none while a tag cannot be read, for a half-typed one is no news."""
    try:
        return {use.adapter: use for use in adapters_named(prompt)}
    except InvalidRequest:  # told next to the prompt when a picture is asked for
        return {}


def build_change(services: Services, prompt: gr.Textbox) -> AdapterChange:
    """Lay the section out, hidden until an adapter is chosen."""
    errors: dict[str, gr.HTML] = {}

    def slot(field: str) -> None:
        errors[field] = controls.build_error(f"adapter_{field}")

    with gr.Accordion("Change or remove it", open=False, visible=False, elem_id="adapter-change") as frame:
        card = _build_card(slot)
        with gr.Row(elem_classes="tools"):
            save = gr.Button("Save", elem_id="adapter-save", size="sm", min_width=80)
        with gr.Row(elem_classes="named-row"):
            name = gr.Textbox(
                label="Name in prompts",
                info="Recipes of pictures that were made with it keep the name that it had.",
                elem_id="adapter-name",
            )
            rename = gr.Button("Rename", elem_id="adapter-rename", size="sm", min_width=88, scale=0)
        slot("name")
        gr.HTML('<p class="adapter-part">Preview on its card</p>', js_on_load=None, apply_default_css=False)
        with gr.Row(elem_classes="tools"):
            shown = gr.Button("Use the picture shown", elem_id="adapter-use-shown", size="sm", min_width=160)
            file = gr.UploadButton(
                "Choose a file", file_types=_PICTURES, elem_id="adapter-picture", size="sm", min_width=112
            )
            no_preview = gr.Button("Remove preview", elem_id="adapter-no-preview", size="sm", min_width=128)
        slot("preview")
        with gr.Row(elem_classes="tools"):
            remove = gr.Button("Remove this adapter", elem_id="adapter-remove", size="sm", min_width=160)
        with gr.Row(visible=False, elem_id="adapter-confirm", elem_classes="tools confirm") as confirm:
            question = gr.HTML("", js_on_load=None)
            yes = gr.Button("Remove for good", variant="stop", elem_id="adapter-remove-yes", size="sm", min_width=136)
            no = gr.Button("Keep it", elem_id="adapter-remove-no", size="sm", min_width=80)
        slot("remove")
    note = gr.HTML("", elem_id="adapter-changed", elem_classes="slot", js_on_load=None)
    buttons = {
        "save": save, "rename": rename, "shown": shown, "file": file, "no_preview": no_preview, "remove": remove,
        "yes": yes, "no": no,
    }  # fmt: skip
    return AdapterChange(
        services=services,
        prompt=prompt,
        picked_id=gr.State(None),
        frame=frame,
        card=card,
        name=name,
        errors=errors,
        buttons=buttons,
        confirm=confirm,
        question=question,
        note=note,
    )


def _build_card(slot: Any) -> dict[str, Component]:
    card: dict[str, Component] = {}
    card["title"] = gr.Textbox(label="Title", elem_id="adapter-title")
    slot("title")
    card["trigger_words"] = gr.Textbox(
        label="Trigger words",
        info="Commas between them. The first goes into the prompt with the tag.",
        elem_id="adapter-words",
    )
    slot("trigger_words")
    card["lora_scale"] = gr.Number(
        label="How much of it a click puts in — scale",
        info=f"1 is as it was trained; {-MAX_LORA_SCALE:g} to {MAX_LORA_SCALE:g}.",
        step=0.1,
        elem_id="adapter-scale",
    )
    slot("lora_scale")
    card["notes"] = gr.Textbox(label="Notes — only you see them", lines=2, max_lines=8, elem_id="adapter-notes")
    slot("notes")
    return card
