"""What the making of an accelerator says: samples, curves, one line of where it stands. Pure functions."""

import math
from collections.abc import Sequence

from studio.domain.distillation import FEW_STEPS, DistillationPlan
from studio.domain.run_events import Looked
from studio.domain.run_files import sample_name, teacher_name
from studio.runs import Run
from tabs.widgets import as_json

EMPTY = "What it draws in 2, 4 and 8 steps appears here while it learns, next to the teacher's pictures."


def samples(run: Run[DistillationPlan] | None, look: Looked | None, line: str, percent: float | None) -> str:
    """The value of the table of samples: a row for each prompt, a column for each number of steps and the teacher."""
    if run is None or look is None:
        return as_json(empty=EMPTY, columns=[], rows=[], line=line, percent=percent, selected=None)
    after = f"after {look.step} steps of training" if look.step else "untrained"
    columns = [{"title": f"{few} steps", "note": after} for few in FEW_STEPS]
    columns.append({"title": "The teacher", "note": f"guidance {run.plan.guidance_scale:g}"})
    rows = []
    for index, prompt in enumerate(look.prompts):
        names = [(sample_name(look.step, few, index), f"{few} steps, {after}: {prompt}") for few in FEW_STEPS]
        names.append((teacher_name(index), f"The teacher: {prompt}"))
        cells = [{"id": name, "thumb": f"runs/{run.id}/samples/{name}", "text": text} for name, text in names]
        rows.append({"title": prompt, "cells": cells})
    return as_json(empty=EMPTY, columns=columns, rows=rows, line=line, percent=percent, selected=None)


def qualities(looked: Sequence[Looked]) -> dict[str, list[float]]:
    """The measure of each look for the plot: percent drawn right, or the distance to the teacher."""
    if not looked:
        return {"step": [math.nan], "quality": [math.nan]}
    return {
        "step": [float(look.step) for look in looked],
        "quality": [_quality(look) for look in looked],
    }


def _quality(look: Looked) -> float:
    if look.right is not None:
        return 100 * look.right / look.checked
    return math.nan if look.distance is None else look.distance


def quality_title(looked: Sequence[Looked]) -> str:
    """What `qualities` are."""
    if looked and looked[-1].right is None:
        return "Distance to the teacher's pictures in 4 steps (less is better)"
    return "Drawn right in 4 steps, percent"
