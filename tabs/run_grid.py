"""Which checkpoint of a run is best: a grid over checkpoints and scales beneath the run, and the way to Generate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.errors import NotFound, StudioError
from studio.domain.run_grid import STANDARD_ORDINARY, STANDARD_SCALES, GridColumn, GridRequest, parse_grid
from studio.domain.tags import without_adapter
from studio.domain.training import TrainingPlan
from studio.run_grid import RunGrid, run_prompts
from studio.run_grid_scores import best_of
from studio.runs import Run
from studio.services import Services
from studio.web.access import visitor_of
from tabs import controls, run_grid_views
from tabs.flash import lines_of
from tabs.form import Form
from tabs.handlers import FORM, QUIET, Updates, guarded
from tabs.widgets import build_matrix

SCALES = (0.25, 0.5, 0.75, 1.0, 1.25)


@dataclass(frozen=True, kw_only=True)
class RunGridPanel:
    """What is compared, and what comes of it. `of` is the run whose checkpoints the form shows, with how many there
    are; `picked` is what was clicked: the name of a column, or that with a row."""

    services: Services
    token: gr.BrowserState
    run: gr.BrowserState
    timer: gr.Timer
    open: gr.Button
    frame: gr.Column
    told: gr.HTML
    form: Form
    comes_to: gr.HTML
    error: gr.HTML
    draw: gr.Button
    stop: gr.Button
    verdict: gr.HTML
    table: gr.HTML
    matrix: gr.HTML
    chosen: gr.HTML
    use: gr.Button
    file: gr.Button
    sheet: gr.Button
    of: gr.State
    picked: gr.State

    @property
    def results(self) -> list[Component]:
        """Everything that `show` may set."""
        return [self.matrix, self.verdict, self.table, self.stop, self.chosen, self.use, self.file, self.sheet]

    @property
    def outputs(self) -> list[Any]:
        """Everything that opening it may set."""
        return [self.open, self.frame, self.told, *self.form.inputs, self.comes_to, self.of, self.picked, *self.results]

    def on_open(self, run_id: Any) -> Updates:
        """Input: the run. Outputs: the panel, filled in for it."""
        run = self._found(run_id)
        if run is None or not run.checkpoints:
            return {self.frame: gr.Column(visible=False)}
        steps = list(run.checkpoints)
        prompts = run_prompts(run)
        form = self.form
        return {
            self.open: gr.Button(visible=True),
            self.frame: gr.Column(visible=True),
            self.told: run_grid_views.kept(run),
            self.of: [run.id, len(steps)],
            self.picked: None,
            form["steps_of_run"]: gr.CheckboxGroup(choices=run_grid_views.step_choices(run), value=steps),
            form["prompts"]: "\n".join(prompts),
            self.comes_to: run_grid_views.comes_to(
                1 + len(steps) * len(STANDARD_SCALES), 2 * len(prompts) + STANDARD_ORDINARY
            ),
            **self.show(run, None),
        }

    def on_look(self, run_id: Any, of: Any, picked: Any) -> Updates:
        """Inputs: the run, what the form shows, what was clicked. Outputs: the grid as it stands; of another run than
        before the panel with its last grid, if there is one."""
        run = self._found(run_id)
        if run is None:
            return {self.open: gr.Button(visible=False), self.frame: gr.Column(visible=False)}
        can_open = {self.open: gr.Button(visible=bool(run.checkpoints))}
        shown, count = of or (None, 0)
        if shown != run.id:
            if self.services.run_grids.newest(run) is not None:
                return {**can_open, **self.on_open(run.id)}
            return {**can_open, self.frame: gr.Column(visible=False), self.of: None}
        updates = {**can_open, **self.show(run, picked)}
        if count != len(run.checkpoints):
            choices = gr.CheckboxGroup(choices=run_grid_views.step_choices(run))
            updates |= {self.form["steps_of_run"]: choices, self.told: run_grid_views.kept(run)}
            updates[self.of] = [run.id, len(run.checkpoints)]
        return updates

    def on_count(self, data: Mapping[Component, Any]) -> str:
        """Inputs: the form, the run. Output: how many pictures that comes to, or what is wrong."""
        try:
            grid = self.services.run_grids.resolve(self._asked(data))
        except StudioError as error:
            return controls.warning_html(f"{error.message} {error.hint}".strip())
        return run_grid_views.comes_to(len(grid.columns), len(grid.rows))

    def on_draw(self, data: Mapping[Component, Any]) -> Updates:
        """Inputs: form, run and token. Outputs: the new grid, or the error."""
        try:
            asked = self._asked(data)
            self.services.run_grids.submit(asked, visitor_of(data[self.token]) or "local")
        except StudioError as error:
            return {self.error: controls.error_html(error.message, error.hint)}
        run = self.services.training.run_of(asked.run)
        return {self.error: "", self.picked: None, **self.show(run, None)}

    def on_stop(self, run_id: Any) -> Any:
        """Input: the run. Output: the Stop button."""
        run = self._found(run_id)
        grid = run and self.services.run_grids.newest(run)
        if grid and grid.job:
            grid.job.cancel()
        return gr.Button(interactive=False)

    def on_pick(self, run_id: Any, event: gr.EventData) -> Updates:
        """Event: a column, or a picture of it. Outputs: it is chosen."""
        run = self._found(run_id)
        return {} if run is None else {self.picked: event.id, **self.show(run, event.id)}

    def on_use(self, run_id: Any, picked: Any, prompt: str) -> tuple[Any, Any]:
        """Inputs: the run, what was clicked, the prompt under Generate. Outputs: a prompt that calls the chosen
        adapter, which takes the place of what the run left, and the model that learnt it."""
        run = self._found(run_id)
        grid = run and self.services.run_grids.newest(run)
        column = grid and self._column(grid, picked)
        if run is None or not grid or not column or column.use is None:
            return gr.skip(), gr.skip()
        before = run.record.adapter_id
        adapter = self.services.training.use_checkpoint(run.id, column.step)
        tag = column.use.model_copy(update={"adapter": adapter}).tag
        others = without_adapter(prompt, before) if before else prompt
        text = others if before and others != prompt else grid.grid.prompts[0]
        return f"{text} {tag}".strip(), run.plan.checkpoint

    def show(self, run: Run[TrainingPlan], picked: Any) -> Updates:
        """The last grid of `run` as it stands."""
        grid = self.services.run_grids.newest(run)
        scores = self.services.run_grids.scores(grid) if grid else ()
        column = self._column(grid, picked) if grid else None
        judge = next((result.judge for result in grid.results.values() if result.judge), "") if grid else ""
        name = picked or (column.name if column else None)
        is_running = bool(grid and grid.job and not grid.job.is_over)
        return {
            self.matrix: run_grid_views.matrix(grid, scores, name),
            self.verdict: run_grid_views.verdict(scores) if scores and not is_running else "",
            self.table: run_grid_views.table(scores, judge),
            self.stop: gr.Button(interactive=is_running),
            self.chosen: run_grid_views.chosen(column),
            self.use: gr.Button(visible=column is not None, interactive=bool(column and column.use)),
            self.file: _file(run, column),
            self.sheet: self._sheet(run, grid),
        }

    def _sheet(self, run: Run[TrainingPlan], grid: RunGrid | None) -> gr.Button:
        if grid is None or not grid.folder.sheet.is_file():
            return gr.Button(visible=False)
        return gr.Button(visible=True, link=f"runs/{run.id}/grid.png?of={grid.folder.job_id}")  # its name changes

    def _column(self, grid: RunGrid, picked: Any) -> GridColumn | None:
        """The column that was clicked, or else the best."""
        name = str(picked or "").partition("/")[0]
        clicked = next((column for column in grid.grid.columns if column.name == name), None)
        best = best_of(self.services.run_grids.scores(grid))
        return clicked or (best[0].column if best else None)

    def _asked(self, data: Mapping[Component, Any]) -> GridRequest:
        """What the controls ask for.

        Raises:
            InvalidRequest: naming the first value that does not work.
        """
        values = self.form.values(data)
        values["steps_of_run"] = tuple(values.get("steps_of_run") or ())
        values["scales"] = tuple(values.get("scales") or ())
        values["prompts"] = tuple(lines_of(values.get("prompts")))
        return parse_grid({**values, "run": str(data[self.run] or "")})

    def _found(self, run_id: Any) -> Run[TrainingPlan] | None:
        try:
            return self.services.training.run_of(str(run_id or ""))
        except NotFound:
            return None

    def wire(self) -> None:
        """How the parts depend on each other."""
        form = self.form
        self.open.click(guarded(self.on_open), self.run, self.outputs, **QUIET)
        self.timer.tick(
            guarded(self.on_look), [self.run, self.of, self.picked], self.outputs, trigger_mode="once", **QUIET
        )
        for field in form.fields.values():
            field.change(guarded(self.on_count), {*form.inputs, self.run}, self.comes_to, **FORM)  # type: ignore
        asked = {*form.inputs, self.run, self.token}
        self.draw.click(guarded(self.on_draw), asked, [*self.results, self.picked, self.error], **FORM)
        self.stop.click(guarded(self.on_stop), self.run, self.stop, **QUIET)
        self.matrix.pick(guarded(self.on_pick), self.run, [*self.results, self.picked], **QUIET)


def _file(run: Run[TrainingPlan], column: GridColumn | None) -> gr.Button:
    """The button that downloads the adapter of a column, as diffusers and most programs read it."""
    if column is None or column.use is None or column.step not in run.checkpoints:
        return gr.Button(visible=False)
    return gr.Button(visible=True, link=f"runs/{run.id}/checkpoints/{column.step}.safetensors")


_WHAT = (
    "Draws the same prompts and seeds with each checkpoint at each scale, and without any, and says which is best. "
    "What was drawn before is not drawn again."
)


def build_run_grid(
    services: Services, token: gr.BrowserState, run: gr.BrowserState, timer: gr.Timer, button: gr.Button
) -> RunGridPanel:
    """Lay out what is compared above what comes of it, and wire them. `button` opens it."""
    with gr.Column(visible=False, elem_id="train-grid") as frame:
        gr.HTML(f"<h2>Evaluate its checkpoints</h2>{controls.note(_WHAT)}", js_on_load=None)
        told = gr.HTML("", js_on_load=None)
        fields: dict[str, Component] = {
            "steps_of_run": gr.CheckboxGroup([], label="Checkpoints — after so many steps", elem_id="train-grid-steps"),
            "scales": gr.CheckboxGroup(
                [(f"{scale:g}", scale) for scale in SCALES], value=list(STANDARD_SCALES),
                label="How much of each — scale", elem_id="train-grid-scales",
            ),
            "prompts": gr.Textbox(label="Prompts, one a line", lines=3, max_lines=8, elem_id="train-grid-prompts"),
        }  # fmt: skip
        with gr.Row():
            fields["num_images"] = gr.Slider(
                1, 16, value=2, step=1, label="Pictures of each prompt", info="More of them make the scores surer.",
                buttons=[], elem_id="train-grid-num", min_width=240,
            )  # fmt: skip
            fields["seed"] = gr.Number(
                0, precision=0, label="Seed", info="The first one, counted up.", elem_id="train-grid-seed",
                min_width=120,
            )  # fmt: skip
        fields["num_ordinary"] = gr.Slider(
            0, 64, value=STANDARD_ORDINARY, step=1, label="Ordinary prompts", buttons=[], elem_id="train-grid-ordinary",
            info="One picture of each: what the model knew before should stay.",
        )  # fmt: skip
        comes_to = gr.HTML("", elem_id="train-grid-count", js_on_load=None)
        error = gr.HTML("", elem_id="train-grid-error", elem_classes="slot", js_on_load=None)
        with gr.Row(elem_classes="actions"):
            draw = gr.Button("Draw the grid", variant="primary", elem_id="train-grid-draw", scale=3, min_width=120)
            stop = gr.Button(
                "Stop", variant="stop", elem_id="train-grid-stop", interactive=False, scale=1, min_width=80
            )
        best = gr.HTML("", elem_id="train-grid-verdict", js_on_load=None)
        matrix = build_matrix(run_grid_views.matrix(None, (), None), "train-grid-matrix")
        chosen = gr.HTML("", elem_id="train-grid-chosen", js_on_load=None)
        with gr.Row(elem_classes="tools"):
            use = gr.Button("Use this one in Generate", size="sm", visible=False, elem_id="train-grid-use")
            file = gr.Button("Download this one", size="sm", visible=False, elem_id="train-grid-file")
            sheet = gr.Button("Download contact sheet", size="sm", visible=False, elem_id="train-grid-sheet")
        table = gr.HTML("", elem_id="train-grid-table", js_on_load=None)
    panel = RunGridPanel(
        services=services, token=token, run=run, timer=timer, open=button, frame=frame, told=told, form=Form(fields),
        comes_to=comes_to, error=error, draw=draw, stop=stop, verdict=best, table=table, matrix=matrix, chosen=chosen,
        use=use, file=file, sheet=sheet, of=gr.State(None), picked=gr.State(None),
    )  # fmt: skip
    panel.wire()
    return panel
