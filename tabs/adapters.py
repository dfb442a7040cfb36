"""Adapters in the left column of Generate: found by a word, put into the prompt by a click, added, looked into."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.adapter import FAMILY_TITLES, AdapterEntry
from studio.domain.catalogue import Checkpoint
from studio.domain.errors import StudioError
from studio.domain.tags import AdapterUse, without_adapter
from studio.services import Services
from tabs import controls
from tabs.adapter_change import named_in
from tabs.adapter_details import AdapterDetails, build_details
from tabs.adapter_facts import preview_url
from tabs.adapter_merge import AdapterMerge, build_merge
from tabs.handlers import QUIET, SLOW, Updates, guarded
from tabs.widgets import as_json, build_cards

LABEL = "Adapters — learnt looks and subjects"
EMPTY = "No adapter is here yet. Add a LoRA file (.safetensors), or train one."
NOTHING_FOUND = "No adapter has that word in its name or trigger words."


@dataclass(frozen=True, kw_only=True)
class AdapterPanel:
    """Search field, cards, for the owner of this machine a place to drop files, and what there is to know of each."""

    services: Services
    frame: gr.Accordion
    search: gr.Textbox
    cards: gr.HTML
    file: gr.File
    note: gr.HTML
    details: AdapterDetails
    merging: AdapterMerge

    def on_show(self, word: str | None, prompt: str | None, checkpoint_id: str | None) -> str:
        """Inputs: search word, prompt, model. Output: the cards, those in use pressed, those that do not fit last."""
        entries = self.services.adapters.store.entries()
        found = [entry for entry in entries if _matches(entry, word or "")]
        checkpoint = self.services.catalogue.checkpoint(checkpoint_id or self.services.catalogue.default_checkpoint)
        in_use = named_in(prompt or "")
        cards = [self.card(entry, checkpoint, entry.id in in_use) for entry in found]
        cards.sort(key=lambda card: not card["is_usable"])
        return as_json(label=LABEL, empty=NOTHING_FOUND if entries else EMPTY, cards=cards)

    def on_pick(self, prompt: str | None, event: gr.EventData) -> str:
        """Input: the prompt. Event: an adapter. Output: the prompt with its tag, or without it if it was there."""
        entry = self.services.adapters.store.get(event.id)
        text = prompt or ""
        return without_adapter(text, entry.id) if entry.id in named_in(text) else _with(text, entry)

    def on_add(self, path: str | None) -> Updates:
        """Input: a file. Outputs: what became of it, and an empty place for the next."""
        if path is None or not self.services.settings.is_local:
            return {self.note: gr.skip()}
        try:
            added = self.services.adapters.store.add(Path(path))
        except StudioError as error:
            return {self.note: controls.error_html(error.message, error.hint), self.file: None}
        said = f"{added.entry.title} is in the list." if added.is_new else f"{added.entry.title} has the same weights."
        return {self.note: controls.note(said), self.file: None}

    def on_list(self, word: str | None, prompt: str | None, checkpoint_id: str | None) -> Updates:
        """Inputs: search word, prompt, model. Outputs: the cards, and the adapters that can be merged."""
        return {self.cards: self.on_show(word, prompt, checkpoint_id), **self.merging.offered()}

    def on_merge(self, data: Mapping[Component, Any]) -> Iterator[Updates]:
        """Inputs: what to merge, prompt, model. Outputs: that it is being done; then the new adapter as the one looked
        into, and in the prompt in place of those that it came of, or what is wrong."""
        yield self.merging.begun()
        merged, told = self.merging.merged(data)
        if merged is None:
            yield told
            return
        prompt, model = self.details.change.prompt, self.details.model
        text = data[prompt] or ""
        for part in filter(None, (data[adapter] for adapter in self.merging.adapters)):
            text = without_adapter(text, part) if part in named_in(text) else text
        shown = self.details.on_open(merged.id, data[model])
        yield {**told, **shown, self.details.frame: gr.Accordion(open=True), prompt: _with(text, merged)}

    def card(self, entry: AdapterEntry, checkpoint: Checkpoint, is_on: bool) -> dict[str, Any]:
        """What the card of `entry` says."""
        adapter = entry.adapter
        version = self.services.adapters.preview_version(entry.id) if entry.has_preview else ""
        card = {"id": entry.id, "title": entry.title, "image": preview_url(entry.id, version), "is_on": is_on}
        if adapter is None:
            return {**card, "line": "Cannot be used", "note": entry.problem, "is_usable": False}
        family = FAMILY_TITLES[adapter.family] if adapter.family else ""
        words = f"say “{entry.trigger_words[0]}”" if entry.trigger_words else ""
        rank = f"rank {adapter.ranks[-1]}" if adapter.ranks else ""
        card["line"] = " · ".join(part for part in (family, rank, words) if part)
        if adapter.family not in (None, checkpoint.family):
            return {**card, "note": f"Not for {checkpoint.title}", "is_usable": is_on}
        return {**card, "note": "", "is_usable": True}

    def wire(self, settle: Any, shown_id: gr.State) -> None:
        """What the cards follow: being opened, the search, and the form, whose pauses `settle` tells. `shown_id` is the
        picture on the stage."""
        prompt, model = self.details.change.prompt, self.details.model
        shown: dict[str, Any] = {
            "fn": guarded(self.on_show),
            "inputs": [self.search, prompt, model],
            "outputs": self.cards,
            **QUIET,
        }
        listed = {**shown, "fn": guarded(self.on_list), "outputs": [self.cards, *self.merging.adapters]}
        for changed in (self.frame.expand, self.search.input, settle):
            changed(trigger_mode="always_last", **shown)
        self.cards.pick(guarded(self.on_pick), prompt, prompt, **QUIET).then(**shown)
        self.details.wire(shown_id, listed)
        if not self.services.settings.is_local:
            return
        added = self.file.upload(guarded(self.on_add), self.file, [self.note, self.file], **QUIET)
        added.then(**listed).then(**self.details.again)
        self.merging.wire()
        self.merging.button.click(
            guarded(self.on_merge),
            {*self.merging.inputs, prompt, model},
            [*self.merging.told, *self.details.outputs, self.details.frame, prompt],
            **SLOW,
        ).then(**listed)


def build_adapters(services: Services, prompt: Any, model: Any) -> AdapterPanel:
    """Lay out the panel, which reads the form's `prompt` and `model`. Only the owner of this machine may add files: a
    stranger's would fill the disk."""
    with gr.Accordion(LABEL, open=False, elem_id="adapters") as frame:
        search = gr.Textbox(label="Find an adapter", placeholder="Name or trigger word", elem_id="adapter-search")
        cards = build_cards(as_json(label=LABEL, empty=EMPTY, cards=[]), "adapter-cards")
        file = gr.File(
            label="Add a LoRA file (.safetensors)",
            height=112,
            visible=services.settings.is_local,
            elem_id="adapter-file",
        )
        note = gr.HTML("", elem_id="adapter-note", elem_classes="slot", js_on_load=None)
        details = build_details(services, prompt, model)
        merging = build_merge(services)
    return AdapterPanel(
        services=services, frame=frame, search=search, cards=cards, file=file, note=note, details=details,
        merging=merging,
    )  # fmt: skip


def _with(prompt: str, entry: AdapterEntry) -> str:
    """`prompt` with the tag of an adapter, and before it the first of its trigger words unless it is there."""
    tag = AdapterUse(adapter=entry.id, lora_scale=entry.card.lora_scale).tag
    text, said = prompt.strip(), prompt.casefold()
    words = [word for word in entry.trigger_words[:1] if word.casefold() not in said]
    return " ".join(part for part in (", ".join([text, *words] if text else words), tag) if part)


def _matches(entry: AdapterEntry, word: str) -> bool:
    texts = (entry.id, entry.title, *entry.trigger_words)
    return any(word.strip().casefold() in text.casefold() for text in texts)
