"""Several adapters made into one, on the page: for the owner of this machine only, as all that changes adapters.

Anybody who can open the page can call any of its listeners, so each of them asks who owns the machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr
from gradio.components import Component

from studio.domain.adapter import MAX_LORA_SCALE, AdapterEntry
from studio.domain.errors import CorruptModel, Incompatible, InvalidRequest, NotFound, StudioError
from studio.domain.merging import DENSITY, MERGE_METHODS, MajoritySign, MergeMethod, drops_numbers, title
from studio.services import Services
from tabs import controls
from tabs.adapter_details import choices
from tabs.handlers import FORM, QUIET, Updates, guarded

MAX_PORTIONS = 6
"""How many adapters the page merges at once; the command line takes any number."""
_FIRST_ROWS = 2
_WHAT = (
    "Several adapters become one file, which is kept beside them. How much: 1 is as it was trained, "
    f"and it may be from {-MAX_LORA_SCALE:g} to {MAX_LORA_SCALE:g}."
)
_WAYS: Mapping[MergeMethod, str] = {
    "svd": "Their sum, as small as you like — svd",
    "cat": "Their sum, exact but larger — cat",
    "linear": "A rough sum, quick — linear",
    "ties": "The strongest of each — TIES",
    "ties_svd": "The strongest, as a whole — TIES, svd",
    "dare_linear": "A random share of each — DARE",
    "dare_ties": "Random, then strongest — DARE, TIES",
    "dare_ties_svd": "Both, as a whole — DARE, TIES, svd",
}
_SIGNS: Mapping[MajoritySign, str] = {
    "total": "The direction with the larger sum",
    "frequency": "The direction that more adapters have",
}


@dataclass(frozen=True, kw_only=True)
class AdapterMerge:
    """A closed section: which adapters and how much of each, in which way, and what the new one is called."""

    services: Services
    frame: gr.Accordion
    rows: Sequence[gr.Row]
    adapters: Sequence[gr.Dropdown]
    weights: Sequence[gr.Number]
    fields: Mapping[str, Component]
    """By the field of `MergeRequest` that they set, but for the portions."""
    errors: Mapping[str, gr.HTML]
    button: gr.Button
    note: gr.HTML

    @property
    def inputs(self) -> set[Component]:
        """For a listener: Gradio then passes one dict keyed by component."""
        return {*self.adapters, *self.weights, *self.fields.values()}

    @property
    def told(self) -> list[Component]:
        """Everything that `tell` and `merged` may set."""
        return [*self.errors.values(), self.fields["name"], self.button, self.note]

    def offered(self) -> Updates:
        """The adapters to choose from as they are now; what is chosen stays."""
        if not self.services.settings.is_local:
            return dict.fromkeys(self.adapters, gr.skip())
        entries = [entry for entry in self.services.adapters.store.entries() if entry.adapter]
        offered = choices(entries, None).choices
        return {adapter: gr.Dropdown(choices=offered) for adapter in self.adapters}

    def on_method(self, method: MergeMethod) -> Updates:
        """Input: the way. Outputs: what it does, and the controls that it has a use for."""
        return {
            self.fields["method"]: gr.Dropdown(info=_sentence(method)),
            self.fields["rank"]: gr.Number(visible=method.endswith("svd")),
            self.fields["density"]: gr.Slider(visible=drops_numbers(method)),
            self.fields["majority_sign"]: gr.Dropdown(visible="ties" in method),
            self.fields["seed"]: gr.Number(visible=method.startswith("dare")),
        }

    def asked(self, data: Mapping[Component, Any]) -> dict[str, Any]:
        """What the form says, without what the way has no use for and what was left empty.

        Raises:
            InvalidRequest: who asks is not the owner of this machine, or a weight is missing.
        """
        if not self.services.settings.is_local:
            raise InvalidRequest("Only the owner of this machine may change adapters.", "Ask them to.")
        values = {name: data[field] for name, field in self.fields.items()}
        used = {
            "name": True,
            "method": True,
            "rank": str(values["method"]).endswith("svd"),
            "density": drops_numbers(values["method"]),
            "majority_sign": "ties" in str(values["method"]),
            "seed": str(values["method"]).startswith("dare"),
        }
        chosen = [(data[a], data[w]) for a, w in zip(self.adapters, self.weights, strict=True) if data[a]]
        if any(weight is None for _, weight in chosen):
            raise InvalidRequest("An adapter has no weight.", "1 is as it was trained.", "portions")
        values["rank"] = values["rank"] or None
        given = {name: value for name, value in values.items() if used[name] and value is not None}
        return {**given, "name": str(values["name"] or "").strip(), "portions": chosen}

    def begun(self) -> Updates:
        """That it is being done, where only one press counts."""
        return {**self.tell("Merging; with SDXL it can take minutes."), self.button: gr.Button(interactive=False)}

    def merged(self, data: Mapping[Component, Any]) -> tuple[AdapterEntry | None, Updates]:
        """Inputs: the form. The adapter that came of it, or None; and what is told of that, beside its field."""
        try:
            asked = self.asked(data)
            added = self.services.adapters.merge(asked)
        except StudioError as error:
            return None, self.tell(error=error)
        called = added.entry.title
        if not added.is_new:
            return added.entry, self.tell(f"{called} has the same weights already.")
        return added.entry, {**self.tell(f"{called} is in the list, and in the prompt."), self.fields["name"]: ""}

    def tell(self, note: str = "", error: StudioError | None = None) -> Updates:
        """A quiet line, or an error next to the control that it is about; whatever was told before goes."""
        updates: Updates = dict.fromkeys(self.errors.values(), controls.NO_ERROR)
        updates |= {self.note: controls.note(note) if note else "", self.button: gr.Button(interactive=True)}
        if error is not None:
            updates[self.errors[_field(error)]] = controls.error_html(error.message, error.hint)
        return updates

    def wire(self) -> None:
        """How the parts depend on each other; what a merger changes elsewhere is wired by `AdapterPanel`."""
        self.frame.expand(guarded(self.offered), None, [*self.adapters], **QUIET)
        method, shown = self.fields["method"], [self.fields[name] for name in self.fields if name != "name"]
        method.input(guarded(self.on_method), method, shown, **FORM)  # type: ignore[attr-defined]
        for adapter, following in zip(self.adapters[_FIRST_ROWS - 1 :], self.rows[_FIRST_ROWS:], strict=False):
            adapter.input(lambda: gr.Row(visible=True), None, following, **FORM)


def _field(error: StudioError) -> str:
    """The control that an error is about."""
    if isinstance(error, InvalidRequest):
        return error.field or "merge"
    return "portions" if isinstance(error, Incompatible | CorruptModel | NotFound) else "merge"


def _sentence(method: MergeMethod) -> str:
    words = MERGE_METHODS[method]
    return f"{words[0].upper()}{words[1:]}."


def build_merge(services: Services) -> AdapterMerge:
    """Lay the section out, closed. Guests do not have it: a merger takes minutes and fills the disk."""
    errors: dict[str, gr.HTML] = {}

    def slot(field: str) -> None:
        errors[field] = controls.build_error(f"merge_{field}")

    with gr.Accordion(
        "Make one of several", open=False, visible=services.settings.is_local, elem_id="adapter-merge"
    ) as frame:
        gr.HTML(controls.note(_WHAT), js_on_load=None)
        rows, adapters, weights = _build_portions()
        slot("portions")
        fields: dict[str, Component] = {}
        fields["method"] = gr.Dropdown(
            [(words, method) for method, words in _WAYS.items()], value=get_args(MergeMethod)[0], filterable=False,
            label="How they become one", info=_sentence("svd"), elem_id="merge-method",
        )  # fmt: skip
        slot("method")
        fields["rank"] = gr.Number(
            0, label=title("rank"), info="0 is as much as the largest of them.", elem_id="merge-rank"
        )
        slot("rank")
        fields["density"] = gr.Slider(
            0.05, 1, value=DENSITY, step=0.05, buttons=[], visible=False, label=title("density"),
            info="Less keeps them out of each other's way, and loses more of each.", elem_id="merge-density",
        )  # fmt: skip
        slot("density")
        fields["majority_sign"] = gr.Dropdown(
            [(words, sign) for sign, words in _SIGNS.items()], value="total", filterable=False, visible=False,
            label=title("majority_sign"), elem_id="merge-sign",
        )  # fmt: skip
        slot("majority_sign")
        fields["seed"] = gr.Number(
            value=0, visible=False, label=title("seed"), info="Another one draws other numbers.", elem_id="merge-seed"
        )
        slot("seed")
        with gr.Row(elem_classes="named-row"):
            fields["name"] = gr.Textbox(label="Name of the new adapter", elem_id="merge-name")
            button = gr.Button("Merge", elem_id="merge-start", size="sm", min_width=88, scale=0)
        slot("name")
        slot("merge")
        note = gr.HTML("", elem_id="merge-note", elem_classes="slot", js_on_load=None)
    return AdapterMerge(
        services=services, frame=frame, rows=rows, adapters=adapters, weights=weights, fields=fields, errors=errors,
        button=button, note=note,
    )  # fmt: skip


def _build_portions() -> tuple[list[gr.Row], list[gr.Dropdown], list[gr.Number]]:
    """Rows of an adapter and how much of it; another row comes when the last one that shows is filled."""
    rows: list[gr.Row] = []
    adapters: list[gr.Dropdown] = []
    weights: list[gr.Number] = []
    for number in range(1, MAX_PORTIONS + 1):
        with gr.Row(visible=number <= _FIRST_ROWS, elem_classes="named-row") as row:
            adapters.append(
                gr.Dropdown(
                    [], value=None, label=f"Adapter {number}", elem_id=f"merge-adapter-{number}", scale=3, min_width=136
                )
            )
            weights.append(
                gr.Number(1, step=0.1, label="How much", elem_id=f"merge-weight-{number}", scale=1, min_width=88)
            )
        rows.append(row)
    return rows, adapters, weights
