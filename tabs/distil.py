"""Under Flash: making an accelerator of one's own, watched while it learns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd
from gradio.components import Component

from studio.distillation import DistillationService
from studio.domain.catalogue import Checkpoint
from studio.domain.distillation import OBJECTIVE_TITLES, DistillationPlan, label, look_every, parse_distillation, usual
from studio.domain.errors import StudioError
from studio.services import Services
from studio.web.access import visitor_of
from tabs import controls, distil_views, run_views
from tabs.flash import FlashTab, able, accelerators_of, lines_of
from tabs.form import Form
from tabs.handlers import FORM, QUIET, Updates, guarded
from tabs.result import build_confirm
from tabs.run_panel import RunPanel
from tabs.visitor import build_browser_state
from tabs.widgets import build_matrix

LOOK_EVERY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class DistilPanel(RunPanel[DistillationPlan]):
    """A teacher and what it is taught on, a run that is watched, samples of any of its looks."""

    flash: FlashTab
    shown: gr.Dropdown
    qualities: gr.LinePlot

    @property
    def service(self) -> DistillationService:
        """See `RunPanel.service`."""
        return self.services.distillation

    @property
    def results(self) -> list[Component]:
        """Everything that `show` may set."""
        return [
            self.samples, self.losses, self.qualities, self.stop, self.go_on, self.use, self.kohya, self.diffusers,
            self.runs, self.shown, self.delete,
        ]  # fmt: skip

    @property
    def _of_a_run(self) -> list[Component]:
        """What makes sense only while a run shows."""
        return [
            self.losses, self.qualities, self.go_on, self.use, self.kohya, self.diffusers, self.shown, self.delete,
        ]  # fmt: skip

    def on_load(self, run_id: Any, shown: Any) -> Updates:
        """Inputs: what the browser kept, which samples. Outputs: that run, or else the newest, as it stands."""
        chosen = run_id if self.found(run_id) else self.newest_id()
        return {self.run: chosen, **self.show(chosen, shown)}

    def on_model(self, checkpoint_id: str) -> Updates:
        """Input: the model. Outputs: the numbers that suit it."""
        values = _usual(self.services.catalogue.checkpoint(checkpoint_id))
        return {self.form[field]: values[field] for field in _NUMBERS}

    def on_start(self, data: Mapping[Component, Any]) -> Updates:
        """Inputs: form and token. Outputs: the new run, or the error."""
        values = self.form.values(data)
        values["captions"] = tuple(lines_of(values.get("captions")))
        values |= {field: str(values.get(field) or "").strip() for field in ("folder", "dataset")}
        try:
            run = self.service.submit(
                parse_distillation({"name": "", **values}), visitor_of(data[self.flash.token]) or "local"
            )
        except StudioError as error:
            return {self.error: controls.error_html(error.message, error.hint)}
        return self.on_choose(run.id)

    def on_look(self, run_id: Any, shown: Any) -> Updates:
        """Inputs: the run, which samples. Outputs: it, as it stands."""
        return self.show(run_id, shown) if run_id else {self.stop: gr.skip()}

    def on_use(self, run_id: Any) -> Updates:
        """Input: the run. Outputs: its model and accelerator in the form above."""
        self.services.own_accelerators.refresh()
        run = self.found(run_id)
        form = self.flash.form
        if run is None or not run.record.accelerator_id:
            return {form["checkpoint"]: gr.skip()}
        checkpoint = self.services.catalogue.checkpoint(run.plan.checkpoint)
        models = [(row.title, row.id) for row in able(self.services)]
        return {
            form["checkpoint"]: gr.Dropdown(choices=models, value=checkpoint.id),
            form["accelerator"]: accelerators_of(self.services, checkpoint, run.record.accelerator_id),
        }

    def latest(self, run_id: Any) -> Updates:
        """See `RunPanel.latest`."""
        return self.show(run_id, "")

    def show(self, run_id: Any, shown: Any) -> Updates:
        """The run `run_id` as it stands, with the samples after step `shown` ("": the latest)."""
        run = self.found(run_id)
        if run is None:
            return {self.samples: distil_views.samples(None, None, "", None), **self.nothing(self._of_a_run)}
        line, percent, controls_of_it = self.standing(run)
        look = next((each for each in run.looked if str(each.step) == shown), run.looked[-1] if run.looked else None)
        return {
            **controls_of_it,
            self.samples: distil_views.samples(run, look, line, percent),
            self.losses: gr.LinePlot(value=pd.DataFrame(run_views.losses(run.trained)), visible=bool(run.trained)),
            self.qualities: gr.LinePlot(
                value=pd.DataFrame(distil_views.qualities(run.looked)),
                title=distil_views.quality_title(run.looked),
                visible=len(run.looked) > 1,
            ),
            self.shown: gr.Dropdown(
                choices=run_views.look_choices(run.looked), value=shown or "", visible=bool(run.looked)
            ),
        }

    def wire(self) -> None:
        """How the parts depend on each other."""
        self.start.click(guarded(self.on_start), {*self.form.inputs, self.flash.token}, self.chosen, **FORM)
        numbers = [self.form[field] for field in _NUMBERS]
        self.form["checkpoint"].input(guarded(self.on_model), self.form["checkpoint"], numbers, **QUIET)
        self.wire_run()
        look = [self.run, self.shown]
        self.shown.input(guarded(self.on_look), look, self.results, **QUIET)
        self.timer.tick(guarded(self.on_look), look, self.results, trigger_mode="once", **QUIET)
        above = [self.flash.form["checkpoint"], self.flash.form["accelerator"]]
        self.use.click(guarded(self.on_use), self.run, above, **QUIET)


def build_distil(services: Services, flash: FlashTab) -> DistilPanel:
    """Lay out what is to be learnt on the left, how far it is on the right, and wire them."""
    with (
        gr.Accordion("Make an accelerator of your own", open=False, elem_id="distil"),
        gr.Row(elem_id="distil-columns"),
    ):
        with gr.Column(scale=4, min_width=320, elem_id="distil-ask"):
            gr.HTML(controls.note(_WHAT), js_on_load=None)
            fields = _build_what(services)
            error = gr.HTML("", elem_id="distil-error", elem_classes="slot", js_on_load=None)
            with gr.Row(elem_classes="actions"):
                start = gr.Button("Start", variant="primary", elem_id="distil-start", scale=3, min_width=120)
                stop = gr.Button(
                    "Stop", variant="stop", elem_id="distil-stop", interactive=False, scale=1, min_width=80
                )
            fields |= _build_how(services.catalogue.checkpoint(services.catalogue.default_checkpoint))
        with gr.Column(scale=7, min_width=320, elem_id="distil-result"):
            runs = gr.Dropdown([], label="Run", visible=False, filterable=False, elem_id="distil-runs")
            samples = build_matrix(distil_views.samples(None, None, "", None), "distil-samples")
            shown = gr.Dropdown(
                [("The latest", "")], value="", label="Samples", visible=False, filterable=False, elem_id="distil-shown"
            )
            with gr.Row():
                losses = gr.LinePlot(
                    x="step", y="loss", title="Loss", x_title="Step", y_title="", visible=False, height=220,
                    elem_id="distil-loss", buttons=[],
                )  # fmt: skip
                qualities = gr.LinePlot(
                    x="step", y="quality", x_title="Step", y_title="", visible=False, height=220,
                    elem_id="distil-quality", buttons=[],
                )  # fmt: skip
            with gr.Row(elem_classes="tools"):
                go_on = gr.Button("Go on", size="sm", visible=False, elem_id="distil-go-on")
                use = gr.Button("Compare it above", size="sm", visible=False, elem_id="distil-use")
                kohya = gr.Button("Download", size="sm", visible=False, elem_id="distil-kohya")
                diffusers = gr.Button("Download for diffusers", size="sm", visible=False, elem_id="distil-diffusers")
                delete = gr.Button("Delete", size="sm", visible=False, elem_id="distil-delete")
            confirm, yes, no = build_confirm("distil-delete", _DELETE)
    panel = DistilPanel(
        services=services, flash=flash, form=Form(fields), error=error, start=start, stop=stop, go_on=go_on,
        delete=delete, confirm=confirm, yes=yes, no=no, runs=runs,
        shown=shown, samples=samples, losses=losses, qualities=qualities, use=use, kohya=kohya, diffusers=diffusers,
        timer=gr.Timer(LOOK_EVERY_S), run=build_browser_state("run"),
    )  # fmt: skip
    panel.wire()
    return panel


_WHAT = (
    "A model teaches an adapter to draw in 2 to 8 steps, without guidance, what it draws in many with it. It learns in "
    "the background; close the page if you like. While pictures are drawn, it waits."
)


_DELETE = "Delete this run with its samples and its states for good? The accelerator that came of it stays."


def _build_what(services: Services) -> dict[str, Component]:
    catalogue = services.catalogue
    return {
        "name": gr.Textbox(label="Name", value="My accelerator", elem_id="distil-name", max_lines=1),
        "checkpoint": gr.Dropdown(
            [(row.title, row.id) for row in catalogue.checkpoints], value=catalogue.default_checkpoint,
            label="Model", info="The teacher.", filterable=False, elem_id="distil-model",
        ),
        "folder": gr.Textbox(
            label="Folder of pictures", max_lines=1, elem_id="distil-folder", placeholder="/path/to/pictures",
            info="With a text file of the same name beside each, images/ and captions/, or metadata.jsonl. A pocket "
            "model needs none: it learns from scenes that the studio draws.",
        ),
        "dataset": gr.Textbox(
            label="Or a data set of the Hugging Face hub", max_lines=1, elem_id="distil-dataset",
            placeholder="owner/name", info="The first so many of its pictures with captions, see More.",
        ),
        "captions": gr.Textbox(
            label="Or captions, one a line", lines=2, max_lines=6, elem_id="distil-captions",
            info="The model then learns from its own pictures of them.",
        ),
    }  # fmt: skip


def _build_how(checkpoint: Checkpoint) -> dict[str, Component]:
    titles = [(title, name) for name, title in OBJECTIVE_TITLES.items()]
    fields: dict[str, Component] = {
        "objective": gr.Radio(titles, value="own_path", elem_id="distil-objective", **_said("objective"))
    }
    values = _usual(checkpoint)
    with gr.Accordion("More — set to suit the model", open=False, elem_id="distil-more"):
        for start in range(0, len(_NUMBERS), 2):
            pair = list(_NUMBERS)[start : start + 2]
            with gr.Row():
                for field in pair:
                    fields[field] = gr.Number(
                        value=values[field], precision=_NUMBERS[field], min_width=120,
                        elem_id=f"distil-{field.replace('_', '-')}", **_said(field),
                    )  # fmt: skip
    return fields


def _usual(checkpoint: Checkpoint) -> dict[str, Any]:
    values = usual(checkpoint)
    return {"seed": 0, "look_every": look_every(values["num_steps"]), **values}


_NUMBERS = {
    "num_steps": 0, "guidance_scale": None, "num_pictures": 0, "batch_size": 0, "rank": 0, "learning_rate": None,
    "distribution_matching": None, "look_every": 0, "seed": 0,
}  # fmt: skip
"""Fields of the request that are numbers, and the decimals that they take (None: any)."""
_MORE_WORDS = {
    "num_pictures": (
        "Pictures",
        "How many of its own, of a data set, or scenes; a folder brings its own number.",
    ),
    "seed": ("Seed", "The same seed and settings give the same accelerator."),
}


def _said(field: str) -> dict[str, Any]:
    if field in _MORE_WORDS:
        title, text = _MORE_WORDS[field]
        return {"label": title, "info": text}
    info = DistillationPlan.model_fields[field]
    return {"label": info.title or label(field), "info": info.description}
