"""What is compared: a list of ways of drawing, filled by an example, by hand, one by one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component
from pydantic import ValidationError

from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.errors import StudioError
from studio.domain.evaluation import EvaluationRequest, SystemRequest, parse_evaluation
from studio.domain.request import NO_ACCELERATOR
from studio.domain.sweep import Axis
from studio.domain.tags import AdapterUse
from studio.services import Services
from tabs import controls, evaluate_views
from tabs.form import Form
from tabs.handlers import FORM, QUIET, Updates, guarded
from tabs.widgets import build_chips, build_systems, chips

FEW, ADAPTER, MODELS = "Many steps against few", "The newest adapter against none", "The pocket models"
_EXAMPLES_LABEL = "Comparisons to begin with"
_BASELINE_STEPS, _FEW_STEPS = 30, (8, 4, 2)

Asked = dict[str, Any]
"""What the browser keeps: `systems` as dicts of `SystemRequest`, and which of them is the `baseline`, by its place."""


@dataclass(frozen=True, kw_only=True)
class SystemsPanel:
    """The list, and the form that adds to it. `asked` is kept by the browser."""

    services: Services
    asked: gr.BrowserState
    examples: gr.HTML
    shown: gr.HTML
    error: gr.HTML
    form: Form
    add: gr.Button

    @property
    def outputs(self) -> list[Component]:
        """What `show` sets."""
        return [self.shown, self.error]

    def on_load(self, asked: Any) -> Updates:
        """Input: what the browser kept. Outputs: the list, the examples and the adapters there are."""
        kept = asked if systems_of(asked) else example(FEW, self.services)
        return {
            self.asked: kept,
            self.examples: chips(examples(self.services), _EXAMPLES_LABEL),
            self.form["adapter"]: gr.Dropdown(choices=adapter_choices(self.services)),
            self.form["checkpoint"]: gr.Dropdown(choices=controls.checkpoint_choices(self.services.catalogue)),
            **self.show(kept),
        }

    def on_example(self, event: gr.EventData) -> Updates:
        """Event: an example. Outputs: its list in place of the present one."""
        asked = example(event.text, self.services)
        return {self.asked: asked, **self.show(asked)}

    def on_pick(self, asked: Any, event: gr.EventData) -> Updates:
        """Event: a system, and what becomes of it. Outputs: the list after that."""
        systems, names = systems_of(asked), self._names(asked)
        if event.name not in names:
            return {}
        place, baseline = names.index(event.name), baseline_of(asked)
        if event.does == "baseline":
            changed = as_asked(systems, place)
        else:
            moved = baseline - (place < baseline) if place != baseline else 0
            changed = as_asked(systems[:place] + systems[place + 1 :], moved)
        return {self.asked: changed, **self.show(changed)}

    def on_model(self, checkpoint_id: str) -> Updates:
        """Input: the model to add. Outputs: what suits it."""
        checkpoint = self.services.catalogue.checkpoint(checkpoint_id)
        return {
            self.form["accelerator"]: controls.accelerator_for(self.services.catalogue, checkpoint, NO_ACCELERATOR),
            self.form["num_inference_steps"]: checkpoint.default_steps,
            self.form["guidance_scale"]: checkpoint.default_guidance,
            self.form["scheduler"]: checkpoint.default_scheduler,
        }

    def on_accelerator(self, checkpoint_id: str, accelerator_id: str) -> Updates:
        """Inputs: the model, the accelerator. Outputs: how one draws with it."""
        row = self.services.catalogue.accelerator(accelerator_id)
        if row is None:
            return self.on_model(checkpoint_id) | {self.form["accelerator"]: gr.skip()}
        return {
            self.form["num_inference_steps"]: row.default_steps,
            self.form["guidance_scale"]: row.default_guidance,
            self.form["scheduler"]: row.scheduler,
        }

    def on_add(self, data: Mapping[Component, Any]) -> Updates:
        """Inputs: the list and the form. Outputs: the list with one more, or what is wrong."""
        asked, values = data[self.asked], self.form.values(data)
        adapter, scale = values.pop("adapter", None), values.pop("lora_scale", 1.0)
        uses = [{"adapter": adapter, "lora_scale": scale}] if adapter else []
        try:
            wanted = parse_evaluation({"systems": [{**values, "adapters": uses}]}).systems[0]
            changed = as_asked([*systems_of(asked), wanted], baseline_of(asked))
            self.services.evaluations.resolve(self.request(changed))
        except StudioError as error:
            return {self.error: controls.error_html(error.message, error.hint)}
        return {self.asked: changed, **self.show(changed)}

    def show(self, asked: Any) -> Updates:
        """The list as it stands."""
        systems = systems_of(asked)
        if not systems:
            return {self.shown: evaluate_views.systems(None, self.services.catalogue), self.error: ""}
        try:
            evaluation = self.services.evaluations.resolve(self.request(asked))
        except StudioError as error:
            return {self.error: controls.error_html(error.message, error.hint)}
        return {self.shown: evaluate_views.systems(evaluation, self.services.catalogue), self.error: ""}

    def request(self, asked: Any, **more: Any) -> EvaluationRequest:
        """What is asked of an evaluation of these systems.

        Raises:
            InvalidRequest: there is none, or `more` does not work.
        """
        request = parse_evaluation({"systems": systems_of(asked), **more})
        place = baseline_of(asked)
        return request.model_copy(update={"baseline": self._names(asked)[place]}) if place else request

    def swept(self, asked: Any, axes: list[Axis], **more: Any) -> EvaluationRequest:
        """What is asked of a sweep of the baseline.

        Raises:
            InvalidRequest: there is no system, or `more` does not work.
        """
        base = systems_of(asked)[baseline_of(asked) :][:1]
        return parse_evaluation({"systems": base, "axes": axes, **more})

    def _names(self, asked: Any) -> list[str]:
        """What the systems that are asked for are called beside each other."""
        evaluation = self.services.evaluations.resolve(parse_evaluation({"systems": systems_of(asked)}))
        return [system.name for system in evaluation.systems if not system.is_control]

    def wire(self) -> None:
        """How the parts depend on each other; `asked` is heard by who shows what it comes to."""
        form = self.form
        everything = [self.asked, *self.outputs]
        self.examples.pick(guarded(self.on_example), None, everything, **QUIET)
        self.shown.pick(guarded(self.on_pick), self.asked, everything, **QUIET)
        settings = [form[name] for name in ("accelerator", "num_inference_steps", "guidance_scale", "scheduler")]
        form["checkpoint"].input(guarded(self.on_model), form["checkpoint"], settings, **QUIET)
        form["accelerator"].input(
            guarded(self.on_accelerator), [form["checkpoint"], form["accelerator"]], settings, **QUIET
        )
        self.add.click(guarded(self.on_add), {*form.inputs, self.asked}, everything, **FORM)


def as_asked(systems: list[SystemRequest], baseline: int = 0) -> Asked:
    """What the browser is to keep."""
    return {"systems": [system.model_dump(mode="json") for system in systems], "baseline": baseline}


def systems_of(asked: Any) -> list[SystemRequest]:
    """The systems of what the browser kept; none where that is not what this studio wrote."""
    try:
        return [SystemRequest.model_validate(each) for each in asked["systems"]]
    except (TypeError, KeyError, ValidationError):
        return []


def baseline_of(asked: Any) -> int:
    """The place of what the others are compared with; 0 where it is none."""
    place = asked.get("baseline") if isinstance(asked, dict) else 0
    return place if isinstance(place, int) and 0 <= place < len(systems_of(asked)) else 0


def examples(services: Services) -> tuple[str, ...]:
    """What can be begun with here."""
    return tuple(name for name in (FEW, ADAPTER, MODELS) if name != ADAPTER or newest_adapter(services))


def example(name: str, services: Services) -> Asked:
    """The systems of an example; with an adapter there is one, the first example has it too."""
    checkpoint = services.catalogue.checkpoint(services.catalogue.default_checkpoint)
    adapter = newest_adapter(services)
    plain = SystemRequest(checkpoint=checkpoint.id, num_inference_steps=_BASELINE_STEPS)
    if name == MODELS:
        pocket = [row for row in services.catalogue.checkpoints if row.is_pocket]
        return as_asked([SystemRequest(checkpoint=row.id) for row in pocket])
    trained = [plain.model_copy(update={"adapters": (AdapterUse(adapter=adapter),)})] if adapter else []
    few = _few(services.catalogue, checkpoint) if name == FEW else []
    return as_asked([plain, *few, *trained])


def _few(catalogue: Catalogue, checkpoint: Checkpoint) -> list[SystemRequest]:
    row = catalogue.accelerators_for(checkpoint)[0]
    return [
        SystemRequest(checkpoint=checkpoint.id, accelerator=row.id, num_inference_steps=steps) for steps in _FEW_STEPS
    ]


def newest_adapter(services: Services) -> str | None:
    """The adapter that came last of those that fit the default model; None without one."""
    checkpoint = services.catalogue.checkpoint(services.catalogue.default_checkpoint)
    store = services.adapters.store
    whole = [entry.id for entry in store.entries() if entry.adapter]
    fitting = [adapter_id for adapter_id in whole if services.adapters.verdict(adapter_id, checkpoint).is_ok]
    return max(fitting, key=lambda adapter_id: store.path(adapter_id).stat().st_mtime, default=None)


def adapter_choices(services: Services) -> list[tuple[str, str]]:
    """None, and those that there are."""
    return [("None", ""), *((entry.title, entry.id) for entry in services.adapters.store.entries() if entry.adapter)]


def build_systems_panel(services: Services, asked: gr.BrowserState) -> SystemsPanel:
    """Lay out the examples, the list, and the form beneath it."""
    catalogue = services.catalogue
    checkpoint = catalogue.checkpoint(catalogue.default_checkpoint)
    shown_examples = build_chips(examples(services), _EXAMPLES_LABEL, "evaluate-examples")
    shown = build_systems(evaluate_views.systems(None, catalogue), "evaluate-systems")
    error = gr.HTML("", elem_id="evaluate-systems-error", elem_classes="slot", js_on_load=None)
    with gr.Accordion("Add another way of drawing", open=False, elem_id="evaluate-add-frame"):
        fields: dict[str, Component] = {
            "checkpoint": gr.Dropdown(
                controls.checkpoint_choices(catalogue), value=checkpoint.id, label="Model", filterable=False,
                elem_id="evaluate-model",
            ),
            "accelerator": gr.Dropdown(
                controls.accelerator_choices(catalogue, checkpoint), value=NO_ACCELERATOR, filterable=False,
                label="Accelerator", info="Draws in 2 to 8 steps, without guidance.", elem_id="evaluate-accelerator",
            ),
            "num_inference_steps": gr.Slider(
                1, 60, value=checkpoint.default_steps, step=1, label="Steps", buttons=[], elem_id="evaluate-steps"
            ),
            "guidance_scale": gr.Slider(
                0, 15, value=checkpoint.default_guidance, step=0.5, label="Guidance scale", buttons=[],
                info="How closely it follows the prompt; 1 or less switches it off.", elem_id="evaluate-guidance",
            ),
            "scheduler": gr.Dropdown(
                controls.scheduler_choices(catalogue), value=checkpoint.default_scheduler, label="Sampler",
                filterable=False, elem_id="evaluate-sampler",
            ),
            "adapter": gr.Dropdown(
                adapter_choices(services), value="", label="Adapter", filterable=False, elem_id="evaluate-adapter",
                info="The same without it is drawn, too, as its control.",
            ),
            "lora_scale": gr.Slider(
                -1, 2, value=1, step=0.05, label="How much of it — scale", buttons=[], elem_id="evaluate-scale"
            ),
            "trigger": gr.Textbox(
                label="Words before every prompt", elem_id="evaluate-trigger",
                info="Such as the adapter's trigger word. Pictures are judged by the prompt without them.",
            ),
            "name": gr.Textbox(
                label="Name", placeholder="What sets it apart", elem_id="evaluate-system-name",
            ),
        }  # fmt: skip
        add = gr.Button("Add it", elem_id="evaluate-add", size="md")
    panel = SystemsPanel(
        services=services, asked=asked, examples=shown_examples, shown=shown,
        error=error, form=Form(fields), add=add,
    )  # fmt: skip
    panel.wire()
    return panel
