"""What the training of a LoRA says: samples beside those without it, curves, the plan in words. Pure functions."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from studio.domain.datasets import Scan, Verdict, counted
from studio.domain.run_events import Looked, Trained
from studio.domain.run_files import control_name, sample_name
from studio.domain.training import TrainingPlan
from studio.domain.training_estimate import Preflight
from studio.runs import Run
from tabs import controls, views
from tabs.widgets import as_json

EMPTY = "What it draws appears here while it learns, next to what the model draws without it."
_SHOWN_LOOKS = 4
_SMOOTHING = 0.9


def samples(run: Run[TrainingPlan] | None, line: str, percent: float | None) -> str:
    """The value of the table of samples: a row for each prompt; columns without the adapter, and after some looks."""
    looks = shown_looks(run.looked, run.best) if run else []
    if run is None or not looks:
        return as_json(empty=EMPTY, columns=[], rows=[], line=line, percent=percent, selected=None)
    columns = [{"title": "Without it", "note": run.plan.checkpoint}]
    columns += [{"title": f"Step {look.step}", "note": _note(look, run.best)} for look in looks]
    rows = []
    for index, prompt in enumerate(looks[-1].prompts):
        names = [(control_name(index), f"Without the adapter: {prompt}")]
        names += [(sample_name(look.step, 0, index), f"After {look.step} steps: {prompt}") for look in looks]
        cells = [{"id": name, "thumb": f"runs/{run.id}/samples/{name}", "text": text} for name, text in names]
        rows.append({"title": prompt, "cells": cells})
    return as_json(empty=EMPTY, columns=columns, rows=rows, line=line, percent=percent, selected=None)


def shown_looks(looked: Sequence[Looked], best: Looked | None) -> list[Looked]:
    """At most so many looks as there is room for, spread over the training: always the last and the best."""
    looks = [look for look in looked if look.step]
    if len(looks) <= _SHOWN_LOOKS:
        return looks
    spread = {round(index * (len(looks) - 1) / (_SHOWN_LOOKS - 1)) for index in range(_SHOWN_LOOKS)}
    if best in looks and (at := looks.index(best)) not in spread:
        spread.discard(min(sorted(spread)[:-1], key=lambda index: abs(index - at)))
        spread.add(at)
    return [looks[index] for index in sorted(spread)]


def _note(look: Looked, best: Looked | None) -> str:
    return f"best, {look.words}" if best is not None and look.step == best.step else look.words


def losses(trained: Sequence[Trained], points: int = 150) -> dict[str, Any]:
    """The loss for the plot, as it was and smoothed: at most so many points of each, means of their neighbours."""
    if not trained:
        return {"step": [math.nan], "loss": [math.nan], "line": ["raw"]}
    width = math.ceil(len(trained) / points)
    groups = [trained[start : start + width] for start in range(0, len(trained), width)]
    steps = [float(group[-1].step) for group in groups]
    raw = [statistics.fmean(each.loss for each in group) for group in groups]
    smooth, mean, weight = [], 0.0, 0.0
    for value in raw:
        mean, weight = _SMOOTHING * mean + (1 - _SMOOTHING) * value, _SMOOTHING * weight + 1 - _SMOOTHING
        smooth.append(mean / weight)
    return {"step": steps * 2, "loss": raw + smooth, "line": ["each"] * len(raw) + ["smoothed"] * len(raw)}


def measures(looked: Sequence[Looked]) -> tuple[dict[str, list[float]], str]:
    """The measure of each look for the plot, and what it is."""
    if any(look.validation is not None for look in looked):
        pairs = [(float(look.step), look.validation) for look in looked if look.validation is not None]
        title = "Loss on pictures held out (less is better)"
    else:
        pairs = [(float(look.step), 100 * look.right / look.checked) for look in looked if look.right is not None]
        title = "Drawn right, percent"
    if not pairs:
        return {"step": [math.nan], "measure": [math.nan]}, title
    return {"step": [step for step, _ in pairs], "measure": [value for _, value in pairs]}, title


def pace(trained: Sequence[Trained]) -> str:
    """How fast it goes at the moment, in words; "" before its first step."""
    if not trained:
        return ""
    last = trained[-1]
    parts = [f"Loss {last.loss:.4f}"]
    parts += [] if last.rate is None else [f"learning rate {last.rate:.1e}"]
    parts += [] if last.images_s is None else [f"{last.images_s:.1f} pictures a second"]
    parts += [] if last.memory_mb is None else [f"{last.memory_mb:,.0f} MB"]
    return " · ".join(parts)


def plan_html(preflight: Preflight) -> str:
    """What a plan comes to and takes; and why it will not be begun, if it does not fit."""
    plan, problem = preflight.plan, preflight.problem
    held = f", {plan.num_held_out} held out to measure it by" if plan.num_held_out else ""
    told = f"{counted(plan.num_pictures, 'picture')}{held}. Samples every {plan.look_every} steps."
    facts = views.definitions(preflight.facts, "facts facts-all")
    refusal = "" if problem is None else controls.warning_html(str(problem))
    return controls.note(told) + facts + refusal


def dataset_rows(scan: Scan) -> list[list[str]]:
    """A row for each picture: its name, what a scan says of it, its caption."""
    return [[verdict.name, _said(verdict), verdict.caption] for verdict in scan.verdicts]


def _said(verdict: Verdict) -> str:
    if not verdict.remarks:
        return f"good, {verdict.width}×{verdict.height}"
    told = " ".join(remark.message for remark in verdict.remarks)
    return told if verdict.is_usable else f"Left out: {told}"
