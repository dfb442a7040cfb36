"""Below the prompt: suggestions with what they change and why, and the prompts that were drawn before."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio.domain.enhancement import Enhancement, Suggestion, difference
from studio.domain.errors import StudioError
from studio.services import Services
from studio.web.access import is_token, visitor_of
from tabs.ask import Ask
from tabs.handlers import QUIET, Updates, guarded
from tabs.widgets import as_json, build_chips, build_suggestions, chips, scroll_to

_WAITS: dict[str, Any] = {**QUIET, "queue": True, "concurrency_limit": 8}
"""A language model may take seconds, and several people may ask at once."""
_EARLIER = "Prompts that were drawn before"
_MOST_EARLIER = 16
_LOOKED_AT = 200
"""Pictures whose prompts are looked through."""
_EMPTY = as_json()
_LABEL = "Suggestions for the prompt"


@dataclass(frozen=True, kw_only=True)
class Enhance:
    """The buttons and what they open. `turn` counts how often others were asked for."""

    services: Services
    ask: Ask
    enhance: gr.Button
    earlier: gr.Button
    suggestions: gr.HTML
    origin: gr.HTML
    prompts: gr.HTML
    turn: gr.State

    def on_enhance(self, prompt: str, checkpoint_id: str, token: Any) -> Iterator[Updates]:
        """Inputs: prompt, model, token. Outputs: suggestions, the first ones."""
        yield from self._suggest(prompt, checkpoint_id, token, 0)

    def on_more(self, prompt: str, checkpoint_id: str, token: Any, turn: int) -> Iterator[Updates]:
        """Inputs: prompt, model, token, turn. Outputs: other suggestions."""
        yield from self._suggest(prompt, checkpoint_id, token, turn + 1)

    def on_take(self, prompt: str, original: str, event: gr.EventData) -> Updates:
        """Inputs: the prompt and what it was before it was first enhanced. Event: a suggestion. Outputs: the prompt,
        where it came from, no suggestions."""
        own = original or prompt or ""
        return {**self._filled(event.prompt, own), self.suggestions: _EMPTY}

    def on_back(self, original: str) -> Updates:
        """Input: the words before. Outputs: the prompt as it was typed."""
        return self._filled(original, "")

    def on_earlier(self, token: Any) -> Updates:
        """Input: the token. Output: the prompts of this visitor, newest first, each once."""
        visitor = visitor_of(token) if is_token(token) else ""
        records = self.services.gallery.find(visitor=visitor, limit=_LOOKED_AT, compared=False)
        prompts = list(dict.fromkeys(record.recipe.prompt_to_type for record in records))[:_MOST_EARLIER]
        none = "There are none yet: what you draw is found here again." if not prompts else ""
        return {
            self.prompts: chips(tuple(prompts), _EARLIER),
            self.suggestions: as_json(label=_LABEL, note=none, buttons=[["close", "Close"]]),
        }

    def on_pick(self, event: gr.EventData) -> Updates:
        """Event: a prompt from before. Outputs: the prompt, nothing open."""
        return {**self._filled(event.text, ""), **self.on_close()}

    def on_close(self) -> Updates:
        """Outputs: nothing open."""
        return {self.suggestions: _EMPTY, self.prompts: chips((), _EARLIER)}

    def on_describe(self, path: str | None, checkpoint_id: str, token: Any) -> Iterator[Updates]:
        """Inputs: the dropped picture, model, token. Outputs: prompts for what it shows."""
        if path is None:
            return
        visitor = visitor_of(token) if is_token(token) else ""
        yield self._waiting("Looking at the picture …", 0)
        try:
            found = self.services.enhancer.describe(Path(path), checkpoint_id, visitor=visitor)
        except StudioError as error:
            yield self._failed(error)
            return
        yield {self.suggestions: shown(found, can_differ=False)}

    def on_origin(self, original: str) -> Any:
        """Input: the words before. Output: the line that tells them."""
        return origin(original)

    def wire(self, token: gr.BrowserState, settle: dict[str, Any]) -> None:
        """How the parts depend on each other; `settle` is the listener that keeps the settings."""
        form = self.ask.form
        prompt, original = form["prompt"], form["original_prompt"]
        asked = [prompt, form["checkpoint"], token]
        found = [self.suggestions, self.turn, self.prompts]
        filled = [prompt, original, self.ask.warning, self.ask.errors["prompt"], *found]
        self.enhance.click(guarded(self.on_enhance), asked, found, **_WAITS)
        described = [self.ask.drop, *asked[1:]]
        self.ask.describe.click(guarded(self.on_describe), described, found, **_WAITS)
        self.ask.describe.click(None, js=scroll_to("prompt-tools"), **QUIET)
        self.suggestions.more(guarded(self.on_more), [*asked, self.turn], found, **_WAITS)
        self.suggestions.take(guarded(self.on_take), [prompt, original], filled, **QUIET).then(**settle)
        self.suggestions.close(guarded(self.on_close), None, found, **QUIET)
        self.origin.back(guarded(self.on_back), original, filled, **QUIET).then(**settle)
        self.origin.close(lambda: "", None, original, **QUIET).then(**settle)
        original.change(guarded(self.on_origin), original, self.origin, **QUIET)
        self.earlier.click(guarded(self.on_earlier), token, found, **QUIET)
        self.prompts.pick(guarded(self.on_pick), None, filled, **QUIET).then(**settle)

    def _suggest(self, prompt: str, checkpoint_id: str, token: Any, turn: int) -> Iterator[Updates]:
        yield self._waiting("Looking for better words …", turn)
        visitor = visitor_of(token) if is_token(token) else ""
        try:
            found = self.services.enhancer.enhance(prompt or "", checkpoint_id, seed=turn, visitor=visitor)
        except StudioError as error:
            yield self._failed(error)
            return
        yield {self.suggestions: shown(found)}

    def _waiting(self, note: str, turn: int) -> Updates:
        return {
            self.suggestions: as_json(label=_LABEL, note=note),
            self.prompts: chips((), _EARLIER),
            self.turn: turn,
        }

    def _failed(self, error: StudioError) -> Updates:
        return {self.suggestions: as_json(label=_LABEL, note=str(error), buttons=[["close", "Close"]])}

    def _filled(self, prompt: str, original: str) -> Updates:
        ask = self.ask
        return {
            ask.form["prompt"]: prompt,
            ask.form["original_prompt"]: original if original != prompt else "",
            ask.warning: "",
            ask.errors["prompt"]: "",
        }


def shown(found: Enhancement, *, can_differ: bool = True) -> str:
    """Suggestions as their widget takes them, with a button for others where there may be some."""
    by = f"Suggested by {found.model} at Groq." if found.source == "groq" else "Suggested by the studio's own rules."
    if found.note:  # which says so
        by = ""
    if not found.suggestions:
        by = "There is nothing to add to this prompt."
    return as_json(
        label=_LABEL,
        note=" ".join(filter(None, [found.note, by])),
        items=[_item(found.original, each) for each in found.suggestions],
        buttons=[*([["more", "Others"]] if can_differ else []), ["close", "Close"]],
    )


def origin(original: str) -> str:
    """The line that says from which words the prompt came, as its widget takes it; nothing where from none."""
    if not original:
        return _EMPTY
    buttons = [["back", "Back to them"], ["close", "Forget them"]]
    return as_json(label="Where the prompt came from", note=f"From your words: “{original}”", buttons=buttons)


def _item(original: str, suggestion: Suggestion) -> dict[str, Any]:
    pieces = [[piece.kind, piece.text] for piece in difference(original, suggestion.prompt)]
    return {"prompt": suggestion.prompt, "why": suggestion.why, "pieces": pieces}


def build_enhance(services: Services, ask: Ask) -> Enhance:
    """Lay out the buttons and the places for what they open."""
    origin_line = build_suggestions("prompt-origin")
    with gr.Row(elem_classes="tools"):
        enhance = gr.Button("Enhance", elem_id="enhance", size="sm", min_width=96, scale=0)
        earlier = gr.Button("Earlier prompts", elem_id="earlier-prompts", size="sm", min_width=128, scale=0)
    return Enhance(
        services=services,
        ask=ask,
        enhance=enhance,
        earlier=earlier,
        origin=origin_line,
        prompts=build_chips((), _EARLIER, "earlier-list"),
        suggestions=build_suggestions("suggestions"),
        turn=gr.State(0),
    )
