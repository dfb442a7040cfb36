"""What any training run says in the page: one line of where it stands, curves, lists. Pure functions."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from studio.domain.events import Cancelled, Event, Failed, Finished, Progress, Queued
from studio.domain.run_events import Looked, Settled, Trained
from studio.run_service import PREPARING, WAITING
from studio.runs import Run
from tabs import views

_POINTS = 150
_STRANGE_S, _STRANGE_STEPS = 900.0, 300


def standing(run: Run[Any], events: Sequence[Event]) -> tuple[str, float | None]:
    """Where a run stands, in words and in percent (None: nothing runs). `events` are those of its job, if one is
    known."""
    best = f" Best so far: step {run.best.step}, {run.best.words}." if run.best else ""
    match events[-1] if events else None:
        case Failed(message=message, hint=hint):
            return f"{message} {hint}{best}", None
        case Finished():
            kept = best.replace("Best so far", "Kept")
            settled = next((event for event in run.events if isinstance(event, Settled)), None)
            if settled is not None:
                return f"Ended at step {settled.step} of {run.plan.num_steps}: it got no better.{kept}", None
            return f"Done: {run.plan.num_steps} steps.{kept}", None
        case Cancelled():
            return f"Stopped at step {run.step} of {run.plan.num_steps}.{best.replace('Best so far', 'Kept')}", None
        case Progress(step=step, total=total, phase=phase) if phase == WAITING:
            return f"Waits while a picture is drawn, at step {step} of {total}.{best}", 100 * step / max(1, total)
        case Progress(step=step, total=total) if run.silent_s > silence_s(run.trained):
            words = f"Nothing heard of step {step + 1} of {total} for {views.duration(run.silent_s)}"
            return (
                f"{words}. If that stays so, stop it and go on: it starts where it was saved last.{best}",
                100 * step / max(1, total),
            )
        case Progress(step=step, total=total, eta_s=eta_s, phase=phase):
            left = "" if eta_s is None else f" · {views.duration(eta_s)} left"
            what = "Getting pictures ready:" if phase == PREPARING else "Step"
            return f"{what} {step} of {total}{left}.{best}", 100 * step / max(1, total)
        case Queued() as event:
            return f"{views.place_in_line(event)} …", 0.0
        case None:
            return f"Step {run.step} of {run.plan.num_steps}.{best}", None
        case _:
            return f"Getting the model ready …{best}", 0.0


def silence_s(trained: Sequence[Trained]) -> float:
    """For how long a run may tell nothing before that is strange: much longer than its steps take, and than it takes
    to draw samples."""
    return max(_STRANGE_S, _STRANGE_STEPS * trained[-1].step_s if trained else 0.0)


def losses(trained: Sequence[Trained]) -> dict[str, list[float]]:
    """The loss for the plot: at most 150 points, each the mean of its neighbours."""
    if not trained:
        return {"step": [math.nan], "loss": [math.nan]}
    width = math.ceil(len(trained) / _POINTS)
    groups = [trained[start : start + width] for start in range(0, len(trained), width)]
    return {
        "step": [float(group[-1].step) for group in groups],
        "loss": [statistics.fmean(each.loss for each in group) for group in groups],
    }


def look_choices(looked: Sequence[Looked]) -> list[tuple[str, str]]:
    """Which samples can be shown, newest first."""
    return [("The latest", ""), *((f"Step {look.step}: {look.words}", str(look.step)) for look in reversed(looked))]


def run_choices(runs: Sequence[Run[Any]]) -> list[tuple[str, str]]:
    """The runs there are, as (label, id)."""
    return [
        (f"{run.plan.name} — {run.plan.checkpoint}, step {run.step} of {run.plan.num_steps}", run.id) for run in runs
    ]
