"""How much is evaluated, and on what: the controls beneath the systems, and what they ask for."""

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.errors import InvalidRequest
from studio.domain.evaluation import PRESETS, Evaluation
from studio.prompt_sets import PROMPT_SETS
from studio.services import Services
from tabs import evaluate_views
from tabs.evaluate_systems import SystemsPanel
from tabs.flash import lines_of
from tabs.sweep import axes_of

GUEST_PICTURES = 300
"""What a guest of a shared page may have drawn at once."""
_SUITED, OWN = "", "own"


def asked_for(systems: SystemsPanel, asked: Any, values: Mapping[str, Any]) -> Evaluation:
    """What the systems and the controls ask for, decided.

    Raises:
        InvalidRequest: something of it does not work.
    """
    prompts, images = dict(PRESETS).get(values.get("preset", "quick"), PRESETS["quick"])
    chosen = values.get("prompt_set") or _SUITED
    more: dict[str, Any] = {"num_prompts": prompts, "num_images": images, "seed": values.get("seed") or 0}
    more |= {name: values.get(name) or "" for name in ("judge", "second_judge")}
    if chosen == OWN:
        more["prompts"] = lines_of(values.get("prompts"))
    elif chosen != _SUITED:
        more["prompt_set"] = chosen
        more["num_prompts"] = min(prompts, PROMPT_SETS[chosen].size) if chosen in PROMPT_SETS else prompts
    axes = axes_of(values)
    request = systems.swept(asked, axes, **more) if axes else systems.request(asked, **more)
    evaluation = systems.services.evaluations.resolve(request)
    if not systems.services.settings.is_local and len(evaluation.cells) > GUEST_PICTURES:
        raise InvalidRequest(
            f"That comes to {len(evaluation.cells)} pictures; guests may have {GUEST_PICTURES} drawn at once.",
            "Take fewer systems or a smaller size.",
            "num_prompts",
        )
    return evaluation


def judge_choices(services: Services) -> list[tuple[str, str]]:
    """Every judge as (label, name)."""
    missing = {row.name: f"{row.title} ({row.megabytes} MB)" for row in services.scoring.missing()}
    return [(missing.get(name, name), name) for name in services.scoring.judges()]


def build_size(services: Services) -> dict[str, Component]:
    """The controls by the name of what they set."""
    sets = [("What suits the models", _SUITED), *((each.title, each.id) for each in PROMPT_SETS.values())]
    judges = judge_choices(services)
    return {
        "preset": gr.Dropdown(
            [(title, name) for name, title in evaluate_views.PRESET_TITLES.items()], value="quick", filterable=False,
            label="Size", info="More prompts tell smaller differences from luck.", elem_id="evaluate-preset",
        ),
        "prompt_set": gr.Dropdown(
            [*sets, ("My own", OWN)], value=_SUITED, filterable=False, label="Prompts", elem_id="evaluate-prompt-set"
        ),
        "prompts": gr.Textbox(
            label="My own prompts, one a line", lines=3, max_lines=8, elem_id="evaluate-prompts", visible=False,
        ),
        "judge": gr.Dropdown(
            [("The one that knows the models' pictures", ""), *judges],
            value="", filterable=False, label="Judge of CLIP scores", elem_id="evaluate-by",
            info="With another one the same pictures are only judged again.",
        ),
        "second_judge": gr.Dropdown(
            [("None", ""), *judges], value="", filterable=False, label="Second judge",
            info="Do both find the same ahead? Scores of one judge may be its taste.", elem_id="evaluate-second",
            visible=len(judges) > 1,
        ),
        "seed": gr.Number(
            0, precision=0, label="Seed", info="With the same one, what was drawn is not drawn again.",
            elem_id="evaluate-seed",
        ),
    }  # fmt: skip
