"""The Evaluate tab: several ways of drawing on the same prompts; what is better, by how much, and how sure that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.errors import NotFound, StudioError
from studio.evaluation import Standing
from studio.evaluation_closer import groups_html, likeness_html, pairs_html
from studio.evaluation_plots import anchors_html, frontier_html, strips_html
from studio.evaluation_report import telling_places
from studio.evaluation_scores import Analysis
from studio.evaluation_views import skills_html, table_html, verdict_html
from studio.gallery import opened
from studio.judge_exams import exam_words
from studio.services import Services
from studio.sweep_views import sweep_html
from studio.web.access import is_token, new_token, visitor_of
from tabs import controls, evaluate_views
from tabs.evaluate_ask import OWN, asked_for, build_size
from tabs.evaluate_systems import SystemsPanel, build_systems_panel
from tabs.form import Form
from tabs.handlers import FORM, QUIET, Updates, guarded
from tabs.judges import JudgesPanel, build_judges
from tabs.probe import ProbePanel, build_probe
from tabs.sweep import build_sweep
from tabs.visitor import build_browser_state, own_image, owner_of
from tabs.vote import VotePanel, build_vote
from tabs.widgets import build_matrix, scroll_to

LOOK_EVERY_S = 2.0
_TELLING, _IN_ORDER = "telling", "order"
_EXPORTS = {
    "report.html": "Report", "images.csv": "Pictures as CSV", "results.json": "Everything as JSON",
    "manifest.toml": "Manifest", "sweep.html": "Sweep to turn",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EvaluateTab:
    """What is compared, and what comes of it. `shown` is the evaluation that shows, kept by the browser; `page` is
    which of its prompts do."""

    services: Services
    token: gr.BrowserState
    systems: SystemsPanel
    form: Form
    comes_to: gr.HTML
    error: gr.HTML
    start: gr.Button
    stop: gr.Button
    go_on: gr.Button
    earlier: gr.Dropdown
    taken_in: gr.UploadButton
    verdict: gr.HTML
    table: gr.HTML
    plots: gr.HTML
    turn: gr.Row
    order: gr.Dropdown
    back: gr.Button
    forth: gr.Button
    page_line: gr.HTML
    matrix: gr.HTML
    slider: gr.ImageSlider
    facts: gr.HTML
    send: gr.Button
    exports: Mapping[str, gr.Button]
    vote: VotePanel
    judges: JudgesPanel
    probe: ProbePanel
    timer: gr.Timer
    shown: gr.BrowserState
    page: gr.State
    picked: gr.State
    problem: gr.State

    @property
    def results(self) -> list[Any]:
        """Everything that `show` may set."""
        told = [self.verdict, self.table, self.plots, self.matrix, self.page_line, self.back, self.forth]
        return [*told, self.turn, self.stop, self.go_on, *self.exports.values()]

    @property
    def picks(self) -> list[Any]:
        """Everything that choosing a picture may set."""
        return [self.slider, self.facts, self.send, self.picked]

    @property
    def outputs(self) -> list[Any]:
        """Everything that opening the page may set."""
        panel = self.systems
        return [
            panel.asked, panel.examples, panel.form["adapter"], panel.form["checkpoint"], *panel.outputs,
            self.earlier, *self.results,
        ]  # fmt: skip

    def on_load(self, asked: Any, shown: Any, token: Any) -> Updates:
        """Inputs: what the browser kept. Outputs: the systems, the evaluation as it stands, the earlier ones. What it
        comes to is for `on_form`, which knows what the form asks for."""
        updates = self.systems.on_load(asked)
        return {
            **updates,
            self.earlier: self._earlier(shown, token),
            **self.show(shown, token, 0, _TELLING),
        }

    def on_form(self, data: Mapping[Component, Any]) -> str:
        """Inputs: the systems and the form. Output: what that comes to."""
        return self._comes_to(data[self.systems.asked], self.form.values(data))

    def on_start(self, data: Mapping[Component, Any]) -> Updates:
        """Inputs: the systems, the form, the token. Outputs: the new evaluation, or the error."""
        token = data[self.token] if is_token(data[self.token]) else new_token()
        try:
            evaluation = asked_for(self.systems, data[self.systems.asked], self.form.values(data))
            begun = self.services.evaluations.submit_resolved(evaluation, visitor_of(token))
        except StudioError as error:
            return self._said(controls.error_html(error.message, error.hint))
        return self._begun(begun, token)

    def on_go_on(self, shown: Any, token: Any) -> Updates:
        """Inputs: the evaluation that shows, the token. Outputs: it is drawn to its end."""
        standing = self._found(shown, token)
        if standing is None:
            return {}
        try:
            return self._begun(self.services.evaluations.submit_resolved(standing.evaluation, visitor_of(token)), token)
        except StudioError as error:
            return self._said(controls.error_html(error.message, error.hint))

    def _begun(self, begun: Standing, token: str) -> Updates:
        return {
            **self._said(""),
            self.token: token,
            self.shown: begun.id,
            self.page: 0,
            self.earlier: self._earlier(begun.id, token),
            **self._unpicked(),
            **self.vote.closed(),
            **self.show(begun.id, token, 0, _TELLING),
        }

    def on_look(self, shown: Any, token: Any, page: Any, order: Any, problem: Any = "") -> Updates:
        """Inputs: what shows, and what was wrong last. Outputs: the same as it stands now, all of it: Gradio's client
        may lose an update."""
        return {self.error: problem, **(self.show(shown, token, page, order) if shown else {})}

    def on_stop(self, shown: Any, token: Any) -> Any:
        """Inputs: the evaluation, the token. Output: the Stop button."""
        standing = self._found(shown, token)
        if standing:
            standing.job.cancel()
        return gr.Button(interactive=False)

    def on_choose(self, chosen: Any, token: Any, order: Any) -> Updates:
        """Inputs: an earlier evaluation, the token. Outputs: it shows."""
        hidden = {**self._unpicked(), **self.vote.closed()}
        return {self.shown: chosen, self.page: 0, **hidden, **self.show(chosen, token, 0, order)}

    def on_take_in(self, file: Any, token: Any) -> Updates:
        """Inputs: a results.json, the token. Outputs: what it says, as if it had been drawn here, or the error."""
        token = token if is_token(token) else new_token()
        owner = owner_of(self.services.settings, token)
        try:
            taken = self.services.evaluations.take_in(Path(str(file)), visitor_of(token), owner)
        except StudioError as error:
            return self._said(controls.error_html(error.message, error.hint))
        return self._begun(taken, token)

    def _said(self, problem: str) -> Updates:
        """What is wrong with what was asked (HTML, "" for nothing), now and at every look."""
        return {self.error: problem, self.problem: problem}

    def _unpicked(self) -> Updates:
        """No picture is chosen."""
        hidden = gr.ImageSlider(value=None, visible=False)
        return {self.slider: hidden, self.facts: "", self.send: gr.Button(visible=False), self.picked: None}

    def on_turn(self, by: int) -> Any:
        """The handler that turns the page. Inputs: what shows. Outputs: other prompts of it."""

        def turn(shown: Any, token: Any, page: Any, order: Any) -> Updates:
            turned = max(0, int(page or 0) + by) if by else 0
            return {self.page: turned, **self.show(shown, token, turned, order)}

        return turn

    def on_pick(self, shown: Any, token: Any, event: gr.EventData) -> Updates:
        """Event: a picture. Outputs: it lies over the baseline's of the same prompt and seed, and what is known of
        it."""
        gallery = self.services.gallery
        record = own_image(gallery, self.services.settings, event.id, token)
        standing = self._found(shown, token)
        if standing is None:
            return {}
        pictures = self.services.evaluations.pictures(standing)
        cells = standing.evaluation.cells
        cell = next((each for each in cells if (held := pictures.get(each.index)) and held.id == record.id), None)
        if cell is None:
            return {}
        base = next(
            each
            for each in cells
            if (each.place, each.image, each.system.name) == (cell.place, cell.image, standing.evaluation.baseline)
        )
        under = pictures.get(base.index, record)
        pair = opened(gallery.path(under)), opened(gallery.path(record))
        return {
            self.slider: gr.ImageSlider(value=pair, visible=True),
            self.facts: evaluate_views.facts(record, standing.results.get(cell.index)),
            self.send: gr.Button(visible=True),
            self.picked: record.id,
        }

    def show(self, shown: Any, token: Any, page: Any, order: Any) -> Updates:
        """The evaluation `shown` as it stands."""
        standing = self._found(shown, token)
        if standing is None:
            return self._nothing()
        analysis = self.services.evaluations.analysis(standing)
        places = telling_places(analysis) if order == _TELLING and analysis.places else _reached(standing)
        size = evaluate_views.page_size(standing.evaluation)
        first = min(int(page or 0), max(0, len(places) - 1) // size) * size
        on_page = places[first : first + size]
        pictures = self.services.evaluations.pictures_at(standing, on_page)
        is_whole = len(standing.results) >= len(standing.evaluation.cells)
        return {
            self.verdict: ("" if standing.evaluation.axes else verdict_html(analysis)) + self._judged(analysis),
            self.table: sweep_html(analysis) or table_html(analysis),
            self.plots: _plots(standing, analysis),
            self.matrix: evaluate_views.matrix(standing, analysis, pictures, on_page),
            self.page_line: evaluate_views.page_line(first, size, len(places)),
            self.turn: gr.Row(visible=bool(places)),
            self.back: gr.Button(interactive=first > 0),
            self.forth: gr.Button(interactive=first + size < len(places)),
            self.stop: gr.Button(interactive=standing.is_running),
            self.go_on: gr.Button(visible=not (standing.is_running or is_whole or standing.is_taken_in)),
            **{
                button: gr.Button(
                    visible=bool(standing.results) and (name != "sweep.html" or bool(standing.evaluation.axes)),
                    link=f"evaluations/{standing.id}/{name}",
                )
                for name, button in self.exports.items()
            },
        }

    def _judged(self, analysis: Analysis) -> str:
        """What the judge can see and what it flatters, where its numbers stand (HTML)."""
        exam = self.services.judge_exams.of(analysis.judge)
        words = [exam_words(exam) if exam else "", self.services.evaluations.remark(analysis.evaluation)]
        return "".join(map(controls.note, filter(None, words)))

    def _nothing(self) -> Updates:
        hidden = {button: gr.Button(visible=False) for button in self.exports.values()}
        return {
            self.verdict: "", self.table: "", self.plots: "", self.page_line: "",
            self.matrix: evaluate_views.matrix(None, None, {}, ()),
            self.turn: gr.Row(visible=False),
            self.back: gr.Button(interactive=False), self.forth: gr.Button(interactive=False),
            self.stop: gr.Button(interactive=False), self.go_on: gr.Button(visible=False),
            **hidden,
        }  # fmt: skip

    def _comes_to(self, asked: Any, values: Mapping[str, Any]) -> str:
        evaluations = self.services.evaluations
        try:
            evaluation = asked_for(self.systems, asked, values)
        except StudioError as error:
            return controls.warning_html(f"{error.message} {error.hint}".strip())
        return evaluate_views.comes_to(
            evaluation, evaluations.remaining_s(evaluation), evaluations.to_fetch(evaluation)
        )

    def _found(self, shown: Any, token: Any) -> Standing | None:
        owner = owner_of(self.services.settings, token)
        try:
            return self.services.evaluations.standing(str(shown or ""), owner)
        except NotFound:
            return None

    def _earlier(self, shown: Any, token: Any) -> gr.Dropdown:
        owner = owner_of(self.services.settings, token)
        choices = [evaluate_views.choice(each) for each in self.services.evaluations.of(owner)]
        ids = [evaluation_id for _, evaluation_id in choices]
        return gr.Dropdown(choices=choices, value=shown if shown in ids else None, visible=bool(choices))

    @property
    def asks(self) -> set[Component]:
        """What `on_form` reads."""
        return {*self.form.inputs, self.systems.asked}

    def wire(self) -> None:
        """How the parts depend on each other."""
        asked = self.asks
        for component in (*self.form.fields.values(), self.systems.asked):
            component.change(guarded(self.on_form), asked, self.comes_to, **FORM)  # type: ignore
        begun = [
            *self.results, self.error, self.problem, self.token, self.shown, self.page, self.earlier, *self.picks,
            *self.vote.outputs,
        ]  # fmt: skip
        chosen_set = self.form["prompt_set"]
        chosen_set.input(lambda chosen: gr.Textbox(visible=chosen == OWN), chosen_set, self.form["prompts"], **QUIET)
        self.start.click(guarded(self.on_start), {*asked, self.token}, begun, **FORM)
        self.go_on.click(guarded(self.on_go_on), [self.shown, self.token], begun, **QUIET)
        look: list[Any] = [self.shown, self.token, self.page, self.order]
        looked = [*self.results, self.error]
        self.timer.tick(guarded(self.on_look), [*look, self.problem], looked, trigger_mode="once", **QUIET)
        self.stop.click(guarded(self.on_stop), [self.shown, self.token], self.stop, **QUIET)
        taken: list[Any] = [self.taken_in, self.token]  # one that comes while another is read waits for its turn
        self.taken_in.upload(guarded(self.on_take_in), taken, begun, trigger_mode="always_last", **QUIET)
        chosen = [self.shown, self.page, *self.picks, *self.vote.outputs, *self.results]
        self.earlier.input(guarded(self.on_choose), [self.earlier, self.token, self.order], chosen, **QUIET)
        for event, by in ((self.back.click, -1), (self.forth.click, 1), (self.order.input, 0)):
            event(guarded(self.on_turn(by)), look, [self.page, *self.results], **QUIET)
        self.matrix.pick(guarded(self.on_pick), [self.shown, self.token], self.picks, **QUIET).then(
            None, js=scroll_to("evaluate-slider"), **QUIET
        )


def _reached(standing: Standing) -> list[int]:
    """The prompts of which something is drawn, in order."""
    return sorted({cell.place for cell in standing.evaluation.cells if cell.index in standing.results})


def _plots(standing: Standing, analysis: Analysis) -> str:
    parts = [
        frontier_html(analysis),
        strips_html(analysis),
        anchors_html(analysis, standing.folder.anchors),
        skills_html(analysis),
        likeness_html(analysis),
    ]
    if not standing.is_running:  # every pair takes seconds, and a page asks every other second
        parts += [pairs_html(analysis), groups_html(analysis)]
    return "".join(parts)


def build_evaluate(services: Services, token: gr.BrowserState, asked: gr.BrowserState) -> EvaluateTab:
    """Lay out what is compared on the left, what comes of it on the right, and wire them. `asked` is what the browser
    keeps of the systems; what lies in a tab that was not opened yet is not read from it."""
    with gr.Row(elem_id="evaluate-columns"):
        with gr.Column(scale=4, min_width=320, elem_id="evaluate-ask"):
            systems = build_systems_panel(services, asked)
            fields = {**build_size(services), **build_sweep()}
            comes_to = gr.HTML("", elem_id="evaluate-count", js_on_load=None)
            error = gr.HTML("", elem_id="evaluate-error", elem_classes="slot", js_on_load=None)
            with gr.Row(elem_classes="actions"):
                start = gr.Button("Evaluate", variant="primary", elem_id="evaluate-start", scale=3, min_width=120)
                stop = gr.Button(
                    "Stop", variant="stop", elem_id="evaluate-stop", interactive=False, scale=1, min_width=80
                )
            earlier = gr.Dropdown(
                [], label="Evaluations so far", visible=False, filterable=False, elem_id="evaluate-earlier"
            )
            taken_in = gr.UploadButton(
                "Open a results.json", file_types=[".json"], type="filepath", size="sm", elem_id="evaluate-take-in"
            )
        with gr.Column(scale=7, min_width=320, elem_id="evaluate-result"):
            verdict = gr.HTML("", elem_id="evaluate-verdict", js_on_load=None)
            table = gr.HTML("", elem_id="evaluate-table", js_on_load=None)
            go_on = gr.Button("Go on with it", visible=False, elem_id="evaluate-go-on", size="sm")
            with gr.Row(elem_classes="tools"):
                exports = {
                    name: gr.Button(title, size="sm", visible=False, elem_id=f"evaluate-{name.partition('.')[0]}")
                    for name, title in _EXPORTS.items()
                }
            with gr.Row(elem_classes="tools", elem_id="evaluate-turn", visible=False) as turn:
                order = gr.Dropdown(
                    [("Where they differ most", _TELLING), ("In order", _IN_ORDER)], value=_TELLING, filterable=False,
                    label="Prompts", elem_id="evaluate-order", scale=2, min_width=200,
                )  # fmt: skip
                page_line = gr.HTML("", elem_id="evaluate-page", js_on_load=None)
                back = gr.Button("Earlier", size="sm", interactive=False, elem_id="evaluate-back", min_width=80)
                forth = gr.Button("Further", size="sm", interactive=False, elem_id="evaluate-forth", min_width=80)
            matrix = build_matrix(evaluate_views.matrix(None, None, {}, ()), "evaluate-matrix")
            slider = gr.ImageSlider(
                label="Baseline on the left, the picture you chose on the right", visible=False, interactive=False,
                elem_id="evaluate-slider", max_height=480, buttons=[],
            )  # fmt: skip
            facts = gr.HTML("", elem_id="evaluate-facts", js_on_load=None)
            send = gr.Button("Send to Generate", size="sm", visible=False, elem_id="evaluate-send")
            plots = gr.HTML("", elem_id="evaluate-plots", js_on_load=None)
            shown = build_browser_state("evaluation")
            vote = build_vote(services, token, shown)
            judges = build_judges(services)
            probe = build_probe(services, token)
    tab = EvaluateTab(
        services=services, token=token, systems=systems, form=Form(fields), comes_to=comes_to, error=error,
        start=start, stop=stop, go_on=go_on, earlier=earlier, taken_in=taken_in, verdict=verdict, table=table,
        plots=plots, turn=turn,
        order=order, back=back, forth=forth, page_line=page_line, matrix=matrix, slider=slider, facts=facts, send=send,
        exports=exports, vote=vote, judges=judges, probe=probe, timer=gr.Timer(LOOK_EVERY_S), shown=shown,
        page=gr.State(0), picked=gr.State(None), problem=gr.State(""),
    )  # fmt: skip
    tab.wire()
    return tab
