"""What the judge can see: its exam, and a button that examines any judge there is."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.domain.errors import StudioError
from studio.judge_exams import exam_html
from studio.services import Services
from tabs import controls
from tabs.evaluate_ask import judge_choices
from tabs.handlers import QUIET, SLOW, guarded


@dataclass(frozen=True, kw_only=True)
class JudgesPanel:
    """A judge, and what came of its exam."""

    services: Services
    judge: gr.Dropdown
    examine: gr.Button
    told: gr.HTML

    def on_choose(self, name: Any) -> str:
        """Input: a judge. Output: what is known of it."""
        return exam_html(self.services.judge_exams.known(str(name)))

    def on_examine(self, name: Any) -> Any:
        """Input: a judge. Outputs: it is being examined, then what came of it."""
        yield {self.told: controls.note("Asking it 600 questions, which takes half a minute and more …")}
        try:
            told = exam_html(self.services.judge_exams.examine(str(name)))
        except StudioError as error:
            told = controls.error_html(error.message, error.hint)
        yield {self.told: told}

    def wire(self) -> None:
        """How the parts depend on each other."""
        self.judge.input(guarded(self.on_choose), self.judge, self.told, **QUIET)
        self.examine.click(guarded(self.on_examine), self.judge, [self.told], **SLOW)


def build_judges(services: Services) -> JudgesPanel:
    """Lay out the judge, its exam and the button."""
    judges = judge_choices(services)
    with gr.Accordion("What the judge can see", open=False, elem_id="evaluate-judges"):
        judge = gr.Dropdown(
            judges, value=judges[0][1], label="Judge", filterable=False, elem_id="evaluate-judge",
            info="Of CLIP scores: ours for pocket models, or one of the judges folder.",
        )  # fmt: skip
        told = gr.HTML(
            exam_html(services.judge_exams.known(judges[0][1])), elem_id="evaluate-judge-told", js_on_load=None
        )
        examine = gr.Button("Examine it", size="sm", elem_id="evaluate-examine")
    panel = JudgesPanel(services=services, judge=judge, examine=examine, told=told)
    panel.wire()
    return panel
