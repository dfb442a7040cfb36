"""What the panels share in which something is trained: a run is chosen, stopped, gone on with, deleted, and shown."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic

import gradio as gr
from gradio.components import Component

from studio.domain.errors import NotFound, StudioError
from studio.domain.events import Event
from studio.run_service import RunService
from studio.runs import PlanT, Run
from studio.services import Services
from tabs import controls, run_views
from tabs.form import Form
from tabs.handlers import QUIET, Updates, guarded


@dataclass(frozen=True, kw_only=True)
class RunPanel(ABC, Generic[PlanT]):
    """What is to be learnt, and how far it is. `run` is the one that shows, kept by the browser. A panel is built only
    where the page's visitor owns all runs."""

    services: Services
    form: Form
    error: gr.HTML
    start: gr.Button
    stop: gr.Button
    go_on: gr.Button
    delete: gr.Button
    confirm: gr.Row
    yes: gr.Button
    no: gr.Button
    runs: gr.Dropdown
    samples: gr.HTML
    losses: gr.LinePlot
    use: gr.Button
    kohya: gr.Button
    diffusers: gr.Button
    timer: gr.Timer
    run: gr.BrowserState

    @property
    @abstractmethod
    def service(self) -> RunService[PlanT]:
        """Whose runs these are."""

    @property
    @abstractmethod
    def results(self) -> list[Component]:
        """Everything that `latest` may set."""

    @abstractmethod
    def latest(self, run_id: Any) -> Updates:
        """The run `run_id` as it stands."""

    @property
    def chosen(self) -> list[Any]:
        """Everything that the choice of a run may set."""
        return [*self.results, self.error, self.run, self.confirm]

    def on_stop(self, run_id: Any) -> Any:
        """Input: the run. Output: the Stop button."""
        if run := self.found(run_id):
            self.service.stop(run.id)
        return gr.Button(interactive=False)

    def on_go_on(self, run_id: Any) -> Updates:
        """Input: the run. Outputs: it goes on, or the error."""
        try:
            run = self.service.go_on(str(run_id or ""))
        except StudioError as error:
            return {self.error: controls.error_html(error.message, error.hint)}
        return {self.error: "", **self.latest(run.id)}

    def on_delete(self, run_id: Any) -> Updates:
        """Input: the run. Outputs: the newest of those that are left, or the error."""
        try:
            self.service.delete(str(run_id or ""))
        except StudioError as error:
            return {self.error: controls.error_html(error.message, error.hint), self.confirm: gr.Row(visible=False)}
        return self.on_choose(self.newest_id())

    def on_choose(self, run_id: Any) -> Updates:
        """Input: the list of runs. Outputs: that one, as it stands."""
        return {self.run: run_id, self.error: "", self.confirm: gr.Row(visible=False), **self.latest(run_id)}

    def found(self, run_id: Any) -> Run[PlanT] | None:
        """The run of that id."""
        try:
            return self.service.run_of(str(run_id or ""))
        except NotFound:
            return None

    def newest_id(self) -> str | None:
        """The run that shows where none was chosen."""
        return next((run.id for run in self.service.runs.of()), None)

    def standing(self, run: Run[PlanT]) -> tuple[str, float | None, Updates]:
        """Where a run stands, in words and in percent (None: nothing runs), and what of that the controls show."""
        job = self.service.job_of(run)
        events: list[Event] = list(job.events(timeout=0, previews=False)) if job else []
        is_over = job is None or job.is_over
        line, percent = run_views.standing(run, events)
        shown = {
            self.stop: gr.Button(interactive=not is_over),
            self.go_on: gr.Button(visible=is_over and not run.is_done),
            self.delete: gr.Button(visible=is_over),
            self.use: gr.Button(visible=bool(run.record.product_id)),
            self.kohya: gr.Button(visible=run.export("kohya") is not None, link=f"runs/{run.id}/kohya.safetensors"),
            self.diffusers: gr.Button(visible=run.export("peft") is not None, link=f"runs/{run.id}/peft.safetensors"),
            self.runs: gr.Dropdown(choices=run_views.run_choices(self.service.runs.of()), value=run.id, visible=True),
        }
        return line, None if is_over else percent, shown

    def nothing(self, of_a_run: list[Component]) -> Updates:
        """What the controls show without a run; `of_a_run` make sense only with one."""
        runs = self.service.runs.of()
        return {
            self.stop: gr.Button(interactive=False),
            self.runs: gr.Dropdown(choices=run_views.run_choices(runs), value=None, visible=bool(runs)),
            **{part: gr.update(visible=False) for part in of_a_run},
        }

    def wire_run(self) -> None:
        """How the controls depend on each other."""
        self.stop.click(guarded(self.on_stop), self.run, self.stop, **QUIET)
        self.go_on.click(guarded(self.on_go_on), self.run, [*self.results, self.error], **QUIET)
        self.runs.input(guarded(self.on_choose), self.runs, self.chosen, **QUIET)
        self.delete.click(lambda: gr.Row(visible=True), None, self.confirm, **QUIET)
        self.no.click(lambda: gr.Row(visible=False), None, self.confirm, **QUIET)
        self.yes.click(guarded(self.on_delete), self.run, self.chosen, **QUIET)
