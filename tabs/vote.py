"""Which of two pictures is better, asked without saying which system drew which."""

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.errors import NotFound, StudioError
from studio.evaluation import Standing
from studio.gallery import opened
from studio.services import Services
from studio.web.access import visitor_of
from tabs import controls, vote_views
from tabs.handlers import QUIET, Updates, guarded
from tabs.visitor import owner_of
from tabs.widgets import asset


@dataclass(frozen=True, kw_only=True)
class VotePanel:
    """Two pictures and what one may say of them. `evaluation` holds the id of the one that is voted on, `open` is the
    button that shows `frame`. What the page gets names no system until the results are asked for."""

    services: Services
    token: gr.BrowserState
    evaluation: gr.BrowserState | gr.State
    open: gr.Button
    frame: gr.Column
    stage: gr.HTML

    @property
    def outputs(self) -> list[Component | gr.Column]:
        """What `on_open` and `closed` set."""
        return [self.frame, self.stage]

    def closed(self) -> Updates:
        """The panel as it is before it is opened, for when another evaluation is looked at."""
        return {self.frame: gr.Column(visible=False), self.stage: vote_views.EMPTY}

    def on_open(self, evaluation_id: Any, token: Any) -> Updates:
        """Inputs: the evaluation, the token. Outputs: the panel with the first pair."""
        try:
            standing = self._standing(evaluation_id, token)
        except NotFound:
            return self.closed()
        return {self.frame: gr.Column(visible=True), **self.show(standing, token)}

    def on_vote(self, evaluation_id: Any, token: Any, event: gr.EventData) -> Updates:
        """Inputs: the evaluation, the token. Event: the `token` of the pair and the `outcome`. Output: the next pair,
        or why the vote was not taken."""
        standing = self._standing(evaluation_id, token)
        try:
            self.services.voting.vote(standing, str(event.token), str(event.outcome), rater_of(token))
        except StudioError as error:
            return self.show(standing, token, problem=str(error))
        return self.show(standing, token)

    def on_undo(self, evaluation_id: Any, token: Any) -> Updates:
        """Inputs: the evaluation, the token. Output: the pair whose vote was taken back."""
        standing = self._standing(evaluation_id, token)
        try:
            self.services.voting.undo(standing, rater_of(token))
        except StudioError as error:
            return self.show(standing, token, problem=str(error))
        return self.show(standing, token)

    def on_results(self, evaluation_id: Any, token: Any) -> Updates:
        """Inputs: the evaluation, the token. Output: what all votes say, below the pair. The next vote hides it."""
        standing = self._standing(evaluation_id, token)
        return self.show(standing, token, told=vote_views.results(self.services.voting.summary(standing)))

    def show(
        self, standing: Standing, token: Any, *, problem: str = "", told: vote_views.Told | None = None
    ) -> Updates:
        """The pair that comes next for whoever bears the token."""
        ballot = self.services.voting.ballot(standing, rater_of(token))
        files = self.services.voting.files(standing, ballot.pair) if ballot.pair else ()
        pictures = [vote_views.picture(opened(file)) for file in files]
        return {self.stage: vote_views.stage(standing, ballot, pictures, problem, told)}

    def _standing(self, evaluation_id: Any, token: Any) -> Standing:
        """Raises NotFound where there is no such evaluation, or it is somebody else's."""
        owner = owner_of(self.services.settings, token)
        return self.services.evaluations.standing(str(evaluation_id or ""), owner)

    def wire(self) -> None:
        """How the parts depend on each other."""
        asked = [self.evaluation, self.token]
        self.open.click(guarded(self.on_open), asked, self.outputs, **QUIET).then(None, js=_TO_VIEW, **QUIET)
        self.stage.vote(guarded(self.on_vote), asked, self.stage, **QUIET)
        self.stage.undo(guarded(self.on_undo), asked, self.stage, **QUIET)
        self.stage.results(guarded(self.on_results), asked, self.stage, **QUIET)


def rater_of(token: Any) -> str:
    """Under which name the bearer of `token` votes."""
    return visitor_of(token) or "local"


def build_vote_stage(value: str, elem_id: str) -> gr.HTML:
    """Two pictures with the answers below; see `tabs.vote_views.stage`. Its `vote` event carries a `token` and an
    `outcome`; its events `undo` and `results` carry nothing."""
    return gr.HTML(
        value,
        html_template=asset("vote.html"),
        js_on_load=asset("vote.js"),
        apply_default_css=False,
        elem_id=elem_id,
    )


_TO_VIEW = "() => document.querySelector('#vote').scrollIntoView({ block: 'start' })"
"""Keys answer only while the pictures can be seen."""
_WHAT = (
    "Two pictures of the same prompt, in random order, with no names. Keys 1 to 5 answer. Results stay hidden until "
    "you ask for them."
)


def build_vote(services: Services, token: gr.BrowserState, evaluation: gr.BrowserState | gr.State) -> VotePanel:
    """Lay out the button and what it opens, and wire them."""
    open_button = gr.Button("Vote blind", size="sm", elem_id="vote-open")
    with gr.Column(visible=False, elem_id="vote") as frame:
        gr.HTML(f"<h2>Vote blind</h2>{controls.note(_WHAT)}", js_on_load=None)
        stage = build_vote_stage(vote_views.EMPTY, "vote-stage")
    panel = VotePanel(services=services, token=token, evaluation=evaluation, open=open_button, frame=frame, stage=stage)
    panel.wire()
    return panel
