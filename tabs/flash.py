"""The Flash tab: the same prompts and seeds in a few steps and in many, side by side, with what each takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd
from gradio.components import Component

from studio.domain.catalogue import Checkpoint
from studio.domain.errors import InvalidRequest, NotFound, StudioError
from studio.domain.events import Failed
from studio.domain.flash import FlashRequest, parse_flash
from studio.domain.request import RANDOM_SEED
from studio.flash import KIND, comparison_of
from studio.gallery import opened
from studio.job import Job
from studio.services import Services
from studio.web.access import is_token, new_token, visitor_of
from tabs import controls, flash_views
from tabs.form import Form
from tabs.handlers import FORM, QUIET, Updates, guarded
from tabs.visitor import build_browser_state, own_image
from tabs.widgets import build_chips, build_matrix, chips, scroll_to

LOOK_EVERY_S = 1.0
STEP_CHOICES = (1, 2, 4, 8)
_EXAMPLES = "Prompts that this model can draw"


@dataclass(frozen=True, kw_only=True)
class FlashTab:
    """What is asked, and what comes of it. `job` is the comparison that shows, kept by the browser."""

    services: Services
    token: gr.BrowserState
    form: Form
    note: gr.HTML
    examples: gr.HTML
    error: gr.HTML
    compare: gr.Button
    stop: gr.Button
    matrix: gr.HTML
    slider: gr.ImageSlider
    figures: gr.HTML
    plot: gr.ScatterPlot
    download: gr.Button
    timer: gr.Timer
    job: gr.BrowserState

    @property
    def results(self) -> list[Component]:
        """Everything that `show` may set."""
        return [self.matrix, self.figures, self.plot, self.download, self.stop, self.error]

    def on_load(self, job_id: Any, token: Any) -> Updates:
        """Inputs: what the browser kept. Outputs: the comparison as it stands, and the models there are."""
        self.services.own_accelerators.refresh()
        models = gr.Dropdown(choices=[(row.title, row.id) for row in able(self.services)])
        return {self.form["checkpoint"]: models, **self.show(job_id, token)}

    def on_model(self, checkpoint_id: str | None, accelerator_id: str | None) -> Updates:
        """Inputs: the model, the accelerator. Outputs: its accelerators, what it understands, prompts that it can
        draw."""
        checkpoint = self.checkpoint(checkpoint_id)
        return {
            self.form["accelerator"]: accelerators_of(self.services, checkpoint, accelerator_id),
            self.form["baseline_guidance"]: checkpoint.default_guidance,
            self.note: controls.checkpoint_note(checkpoint),
            self.examples: chips(checkpoint.examples, _EXAMPLES),
        }

    def on_example(self, prompts: str | None, event: gr.EventData) -> str:
        """Event: a prompt. Output: it stands below those that are there."""
        return "\n".join([*lines_of(prompts), event.text])

    def on_compare(self, data: Mapping[Component, Any]) -> Updates:
        """Inputs: form and token. Outputs: the new job, or the error."""
        token = data[self.token] if is_token(data[self.token]) else new_token()
        try:
            job = self.services.flash.submit(self.read(data), visitor_of(token))
        except StudioError as error:
            return {self.error: controls.error_html(error.message, error.hint)}
        return {
            self.token: token,
            self.job: job.id,
            **self.show(job.id, token),
            self.slider: gr.ImageSlider(value=None, visible=False),
        }

    def read(self, data: Mapping[Component, Any]) -> FlashRequest:
        """What the controls ask for.

        Raises:
            InvalidRequest: naming the first value that does not work.
        """
        values = self.form.values(data)
        values["prompts"] = tuple(lines_of(values.get("prompts")))
        values["steps"] = tuple(values.get("steps") or ())
        if not values["steps"]:
            raise InvalidRequest("No number of steps is chosen.", "Choose one or more.", "steps")
        return parse_flash(values)

    def on_look(self, job_id: Any, token: Any) -> Updates:
        """Inputs: the job, token. Outputs: the comparison as it stands. Everything, every time: of updates that follow
        each other fast, Gradio's client can lose the last."""
        return self.show(job_id, token) if job_id else {self.stop: gr.skip()}

    def on_stop(self, job_id: Any, token: Any) -> Any:
        """Inputs: the job, token. Output: the Stop button."""
        if job := self.own_job(job_id, token):
            job.cancel()
        return gr.Button(interactive=False)

    def on_pick(self, token: Any, job_id: Any, event: gr.EventData) -> Any:
        """Event: a picture. Output: it lies over the baseline's picture of the same prompt and seed."""
        gallery = self.services.gallery
        record = own_image(gallery, self.services.settings, event.id, token)
        picked = opened(gallery.path(record))
        job = self.own_job(job_id, token)
        baseline = comparison_of(job).baseline if job else None
        if job is None or baseline is None:
            return gr.ImageSlider(value=(picked, picked), visible=True)
        width = len(comparison_of(job).columns)
        first = self.services.flash.pictures(job).get(record.image_index // width * width)
        under = picked if first is None else opened(gallery.path(first))
        return gr.ImageSlider(value=(under, picked), visible=True)

    def show(self, job_id: Any, token: Any) -> Updates:
        """The comparison `job_id` as it stands."""
        job = self.own_job(job_id, token)
        if job is None:
            return {
                self.matrix: flash_views.matrix(None, {}, ()),
                self.figures: "",
                self.plot: gr.ScatterPlot(visible=False),
                self.download: gr.Button(visible=False),
                self.stop: gr.Button(interactive=False),
            }
        comparison, pictures = comparison_of(job), self.services.flash.pictures(job)
        figures = self.services.flash.figures(job)
        told = list(job.events(timeout=0, previews=False))
        line, percent = flash_views.progress(told)
        points = flash_views.frontier(figures)
        failure = next((event for event in told if isinstance(event, Failed)), None)
        return {
            self.matrix: flash_views.matrix(comparison, pictures, figures, line, percent),
            self.figures: flash_views.table(figures, self.services.flash.judged_by(job)),
            self.plot: gr.ScatterPlot(value=pd.DataFrame(points), visible=len(figures) > 1),
            self.download: gr.Button(visible=bool(pictures), link=f"comparisons/{job.id}.zip"),
            self.stop: gr.Button(interactive=not job.is_over),
            self.error: controls.error_html(failure.message, failure.hint) if failure else "",
        }

    def own_job(self, job_id: Any, token: Any) -> Job | None:
        """The comparison of that id, if the bearer of `token` asked for it."""
        try:
            job = self.services.runner.job(str(job_id or ""))
        except NotFound:
            return None
        return job if job.kind == KIND and job.visitor == visitor_of(token) else None

    def checkpoint(self, checkpoint_id: str | None) -> Checkpoint:
        rows = able(self.services)
        return next((row for row in rows if row.id == checkpoint_id), rows[0])

    def wire(self) -> None:
        """How the parts depend on each other."""
        model = self.form["checkpoint"]
        model.change(
            guarded(self.on_model),
            [model, self.form["accelerator"]],
            [self.form["accelerator"], self.form["baseline_guidance"], self.note, self.examples],
            **QUIET,
        )
        self.examples.pick(guarded(self.on_example), self.form["prompts"], self.form["prompts"], **QUIET)
        self.compare.click(
            guarded(self.on_compare),
            {*self.form.inputs, self.token},
            [*self.results, self.token, self.job, self.slider],
            **FORM,
        )
        look = [self.job, self.token]
        self.timer.tick(guarded(self.on_look), look, self.results, trigger_mode="once", **QUIET)
        self.stop.click(guarded(self.on_stop), [self.job, self.token], self.stop, **QUIET)
        self.matrix.pick(guarded(self.on_pick), [self.token, self.job], self.slider, **QUIET).then(
            None, js=scroll_to("flash-slider"), **QUIET
        )


def able(services: Services) -> list[Checkpoint]:
    """The models that there is an accelerator for."""
    return [row for row in services.catalogue.checkpoints if services.catalogue.accelerators_for(row)]


def accelerators_of(services: Services, checkpoint: Checkpoint, chosen: str | None = None) -> gr.Dropdown:
    """The accelerators of `checkpoint`; `chosen` stays chosen if it is one of them, else the first one is."""
    choices = controls.accelerator_choices(services.catalogue, checkpoint)[1:]
    ids = [accelerator_id for _, accelerator_id in choices]
    return gr.Dropdown(choices=choices, value=chosen if chosen in ids else ids[0])


def lines_of(text: str | None) -> list[str]:
    """A prompt a line."""
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


def build_flash(services: Services, token: gr.BrowserState) -> FlashTab:
    """Lay out what is asked on the left, what comes of it on the right, and wire them."""
    checkpoint = able(services)[0]
    with gr.Row(elem_id="flash-columns"):
        with gr.Column(scale=4, min_width=320, elem_id="flash-ask"):
            prompts = gr.Textbox(
                label="Prompts, one a line", lines=3, max_lines=8, placeholder="What the pictures should show",
                value=checkpoint.examples[0], elem_id="flash-prompts",
            )  # fmt: skip
            error = gr.HTML("", elem_id="flash-error", elem_classes="slot", js_on_load=None)
            with gr.Row(elem_classes="actions"):
                compare = gr.Button("Compare", variant="primary", elem_id="flash-compare", scale=3, min_width=120)
                stop = gr.Button("Stop", variant="stop", elem_id="flash-stop", interactive=False, scale=1, min_width=80)
            examples = build_chips(checkpoint.examples, _EXAMPLES, "flash-examples")
            fields, note = _build_settings(services, checkpoint)
        with gr.Column(scale=7, min_width=320, elem_id="flash-result"):
            matrix = build_matrix(flash_views.matrix(None, {}, ()), "flash-matrix")
            slider = gr.ImageSlider(
                label="Baseline on the left, the picture you chose on the right", visible=False, interactive=False,
                elem_id="flash-slider", max_height=480, buttons=[],
            )  # fmt: skip
            figures = gr.HTML("", elem_id="flash-figures", js_on_load=None)
            plot = gr.ScatterPlot(
                x="seconds", y="quality", color="kind", tooltip=["way", "seconds", "quality"], visible=False,
                height=260, elem_id="flash-plot", x_title="Seconds a picture", y_title="Quality", y_lim=[0, 1.05],
                color_title="", title="Speed and quality",
            )  # fmt: skip
            with gr.Row(elem_classes="tools"):
                download = gr.Button("Download all", elem_id="flash-download", size="sm", visible=False)
    tab = FlashTab(
        services=services, token=token, form=Form({"prompts": prompts, **fields}), note=note, examples=examples,
        error=error, compare=compare, stop=stop, matrix=matrix, slider=slider, figures=figures, plot=plot,
        download=download, timer=gr.Timer(LOOK_EVERY_S), job=build_browser_state("comparison"),
    )  # fmt: skip
    tab.wire()
    return tab


def _build_settings(services: Services, checkpoint: Checkpoint) -> tuple[dict[str, Component], gr.HTML]:
    fields: dict[str, Component] = {}
    fields["checkpoint"] = gr.Dropdown(
        [(row.title, row.id) for row in able(services)], value=checkpoint.id, label="Model",
        info="Those that there is an accelerator for.", filterable=False, elem_id="flash-model",
    )  # fmt: skip
    note = gr.HTML(controls.checkpoint_note(checkpoint), elem_id="flash-note", js_on_load=None)
    choices = controls.accelerator_choices(services.catalogue, checkpoint)[1:]
    fields["accelerator"] = gr.Dropdown(
        choices, value=choices[0][1], label="Accelerator", filterable=False, elem_id="flash-accelerator",
        info="What makes few steps enough; its licence holds for what you draw with it.",
    )  # fmt: skip
    fields["decoder"] = gr.Dropdown(
        controls.decoder_choices(), value="half", label="Decoder of few steps", filterable=False,
        elem_id="flash-decoder", info="In full it is a quarter of the time of four steps; the tiny one is rougher.",
    )  # fmt: skip
    fields["steps"] = gr.CheckboxGroup(
        [(f"{steps}", steps) for steps in STEP_CHOICES], value=[2, 4, 8], label="Numbers of steps",
        info="Each is a column.", elem_id="flash-steps",
    )  # fmt: skip
    fields["num_images"] = gr.Slider(
        1, 16, value=2, step=1, label="Pictures of each prompt", info="More of them make the figures surer.",
        buttons=[], elem_id="flash-num",
    )  # fmt: skip
    fields["seed"] = gr.Number(
        RANDOM_SEED, precision=0, label="Seed", info="The first one, counted up; -1 picks one.", elem_id="flash-seed"
    )
    with gr.Accordion("Baseline — what they are compared with", open=False, elem_id="flash-baseline"):
        fields["has_baseline"] = gr.Checkbox(True, label="Draw the model as it is, too", elem_id="flash-has-baseline")
        fields["baseline_steps"] = gr.Slider(
            1, 60, value=30, step=1, label="Its steps", buttons=[], elem_id="flash-baseline-steps"
        )
        fields["baseline_guidance"] = gr.Slider(
            1, 15, value=checkpoint.default_guidance, step=0.5, label="Its guidance scale", buttons=[],
            elem_id="flash-baseline-guidance",
        )  # fmt: skip
        fields["negative_prompt"] = gr.Textbox(
            label="What to keep out — negative prompt", elem_id="flash-negative",
            info="Of the baseline alone: few steps work without guidance, which it needs.",
        )  # fmt: skip
    return fields, note
