"""Train LoRA: pictures in, a plan that says what it comes to, a run that is watched, an adapter out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from gradio.components import Component

from studio.domain.errors import InvalidRequest, StudioError
from studio.domain.training import TrainingPlan, parse_training
from studio.services import Services
from studio.training import TrainingService
from studio.web.access import visitor_of
from tabs import controls, train_views
from tabs.flash import lines_of
from tabs.form import Form
from tabs.handlers import FORM, QUIET, Updates, guarded
from tabs.pictures import PicturesPanel, build_pictures_panel
from tabs.result import build_confirm
from tabs.run_grid import RunGridPanel, build_run_grid
from tabs.run_panel import RunPanel
from tabs.train_form import build_how, build_what, usual_values
from tabs.visitor import build_browser_state
from tabs.widgets import build_matrix

LOOK_EVERY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class TrainTab(RunPanel[TrainingPlan]):
    """Pictures in, a plan that says what it comes to, a run that is watched."""

    token: gr.BrowserState
    pictures: PicturesPanel
    plan: gr.HTML
    pace: gr.HTML
    measures: gr.LinePlot
    grid: RunGridPanel

    @property
    def service(self) -> TrainingService:
        """See `RunPanel.service`."""
        return self.services.training

    @property
    def results(self) -> list[Component]:
        """Everything that `show` may set."""
        return [self.samples, self.pace, self.stop, self.runs, *self._of_a_run]

    @property
    def _of_a_run(self) -> list[Component]:
        """What makes sense only while a run shows."""
        return [self.losses, self.measures, self.go_on, self.use, self.kohya, self.diffusers, self.delete]

    def on_load(self, run_id: Any) -> Updates:
        """Input: what the browser kept. Outputs: that run, or else the newest, as it stands."""
        chosen = run_id if self.found(run_id) else self.newest_id()
        return {self.run: chosen, **self.show(chosen)}

    def on_usual(self, data: Mapping[Component, Any]) -> Updates:
        """Inputs: the form. Outputs: the numbers that suit its model and preset, and what they come to."""
        changed = self._suited(
            data[self.form["checkpoint"]],
            data[self.form["preset"]],
            self.pictures.count(data[self.form["folder"]]),
            data[self.form["subject"]],
        )
        return {**changed, **self.on_plan({**data, **changed})}

    def _suited(self, checkpoint_id: str, *choices: Any) -> Updates:
        """The fields that follow the model, the preset and the subject, with what they hold then."""
        values = usual_values(self.services.catalogue.checkpoint(checkpoint_id), *choices)
        return {self.form[field]: value for field, value in values.items() if field in self.form.fields}

    def on_plan(self, data: Mapping[Component, Any]) -> Updates:
        """Inputs: the form. Output: what it comes to and takes, or what is wrong with it."""
        try:
            preflight = self.service.preflight(self._asked(data), is_patient=False)
            return {self.plan: train_views.plan_html(preflight)}
        except InvalidRequest as error:
            is_empty = error.field == "folder"
            return {self.plan: "" if is_empty else controls.warning_html(f"{error.message} {error.hint}")}
        except StudioError as error:
            return {self.plan: controls.warning_html(f"{error.message} {error.hint}")}

    def on_start(self, data: Mapping[Component, Any]) -> Updates:
        """Inputs: form and token. Outputs: the new run, or the error."""
        try:
            run = self.service.submit(self._asked(data), visitor_of(data[self.token]) or "local")
        except StudioError as error:
            return {self.error: controls.error_html(error.message, error.hint)}
        return self.on_choose(run.id)

    def on_look(self, run_id: Any) -> Updates:
        """Input: the run. Outputs: it, as it stands."""
        return self.show(run_id) if run_id else {self.stop: gr.skip()}

    def on_use(self, run_id: Any, prompt: str) -> tuple[Any, Any]:
        """Inputs: the run, the prompt under Generate. Outputs: a prompt that calls what was learnt, one of those that
        samples were drawn of, and the model that learnt it."""
        run = self.found(run_id)
        if run is None or not run.record.adapter_id:
            return gr.skip(), gr.skip()
        tag = f"<lora:{run.record.adapter_id}:1>"
        if tag in prompt:
            return gr.skip(), run.plan.checkpoint
        shown = run.looked[-1].prompts if run.looked else ()
        return f"{shown[0] if shown else run.plan.trigger or prompt} {tag}".strip(), run.plan.checkpoint

    def latest(self, run_id: Any) -> Updates:
        """See `RunPanel.latest`."""
        return self.show(run_id)

    def show(self, run_id: Any) -> Updates:
        """The run `run_id` as it stands."""
        run = self.found(run_id)
        if run is None:
            return {self.samples: train_views.samples(None, "", None), self.pace: "", **self.nothing(self._of_a_run)}
        line, percent, shown = self.standing(run)
        measured, title = train_views.measures(run.looked)
        return {
            **shown,
            self.samples: train_views.samples(run, line, percent),
            self.pace: "" if percent is None or not run.trained else controls.note(train_views.pace(run.trained)),
            self.losses: gr.LinePlot(value=pd.DataFrame(train_views.losses(run.trained)), visible=bool(run.trained)),
            self.measures: gr.LinePlot(value=pd.DataFrame(measured), title=title, visible=len(run.looked) > 1),
        }

    def _asked(self, data: Mapping[Component, Any]) -> Any:
        values = self.form.values(data)
        values |= {field: tuple(lines_of(values.get(field))) for field in ("sample_prompts", "prior_prompts")}
        folder = str(values.get("folder") or "").strip()
        values["folder"] = str(Path(folder).expanduser()) if folder else ""
        values["trigger"] = str(values.get("trigger") or "").strip()
        return parse_training({"name": "", **values})

    def wire(self) -> None:
        """How the parts depend on each other."""
        form = self.form
        self.start.click(guarded(self.on_start), {*form.inputs, self.token}, self.chosen, **FORM)
        usual = [*self._suited(self.services.catalogue.default_checkpoint), self.plan]
        for field in ("checkpoint", "preset", "subject"):
            form[field].input(guarded(self.on_usual), form.inputs, usual, **FORM)
        self.pictures.wire()
        self.pictures.told.change(guarded(self.on_usual), {*form.inputs}, usual, **FORM)
        for field in _COUNTED:
            form[field].change(guarded(self.on_plan), form.inputs, self.plan, **FORM)
        self.wire_run()
        self.timer.tick(guarded(self.on_look), self.run, self.results, trigger_mode="once", **QUIET)


_COUNTED = ("num_steps", "batch_size", "accumulation", "validation_share", "look_every", "size", "rank", "reach",
            "text_learning_rate", "optimizer", "num_prior", "prior_weight", "shuffle_tags")  # fmt: skip
"""Fields that decide what it takes."""

_WHAT = (
    "Teach a model a thing or a style from a few pictures. It learns in the background; close the page if you like. "
    "While pictures are drawn, it waits."
)
_DELETE = "Delete this run with its samples, states and checkpoints for good? The adapter that came of it stays."


def build_train(services: Services, token: gr.BrowserState) -> TrainTab:
    """Lay out what is to be learnt on the left, how far it is on the right, and wire them."""
    checkpoint = services.catalogue.checkpoint(services.catalogue.default_checkpoint)
    with gr.Row(elem_id="train-columns"):
        with gr.Column(scale=4, min_width=320, elem_id="train-ask"):
            gr.HTML(controls.note(_WHAT), js_on_load=None)
            pictures = build_pictures_panel(services)
            fields: dict[str, Component] = {
                "subject": pictures.subject,
                "folder": pictures.folder,
                **build_what(services.catalogue),
            }
            plan = gr.HTML("", elem_id="train-plan", elem_classes="slot", js_on_load=None)
            error = gr.HTML("", elem_id="train-error", elem_classes="slot", js_on_load=None)
            with gr.Row(elem_classes="actions"):
                start = gr.Button("Start", variant="primary", elem_id="train-start", scale=3, min_width=120)
                stop = gr.Button("Stop", variant="stop", elem_id="train-stop", interactive=False, scale=1, min_width=80)
            fields |= build_how(checkpoint)
        with gr.Column(scale=7, min_width=320, elem_id="train-result"):
            runs = gr.Dropdown([], label="Run", visible=False, filterable=False, elem_id="train-runs")
            samples = build_matrix(train_views.samples(None, "", None), "train-samples")
            pace = gr.HTML("", elem_id="train-pace", js_on_load=None)
            with gr.Row():
                losses = gr.LinePlot(
                    x="step", y="loss", color="line", title="Loss", x_title="Step", y_title="", visible=False,
                    height=220, elem_id="train-loss", buttons=[],
                )  # fmt: skip
                measures = gr.LinePlot(
                    x="step", y="measure", x_title="Step", y_title="", visible=False, height=220,
                    elem_id="train-measure", buttons=[],
                )  # fmt: skip
            with gr.Row(elem_classes="tools"):
                go_on = gr.Button("Go on", size="sm", visible=False, elem_id="train-go-on")
                use = gr.Button("Use in Generate", size="sm", visible=False, elem_id="train-use")
                kohya = gr.Button("Download", size="sm", visible=False, elem_id="train-kohya")
                diffusers = gr.Button("Download for diffusers", size="sm", visible=False, elem_id="train-diffusers")
                evaluate = gr.Button("Evaluate its checkpoints", size="sm", visible=False, elem_id="train-evaluate")
                delete = gr.Button("Delete", size="sm", visible=False, elem_id="train-delete")
            confirm, yes, no = build_confirm("train-delete", _DELETE)
            run, timer = build_browser_state("training"), gr.Timer(LOOK_EVERY_S)
            grid = build_run_grid(services, token, run, timer, evaluate)
    tab = TrainTab(
        services=services, token=token, form=Form(fields), pictures=pictures, plan=plan, error=error, start=start,
        stop=stop, go_on=go_on, delete=delete, confirm=confirm, yes=yes, no=no, runs=runs, samples=samples, pace=pace,
        losses=losses, measures=measures, use=use, kohya=kohya, diffusers=diffusers, timer=timer, run=run,
        grid=grid,
    )  # fmt: skip
    tab.wire()
    return tab
