"""What the Evaluate tab says: the systems, how much there is to draw, the pictures. Pure functions, no components."""

import html
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import product

from studio.domain.catalogue import Catalogue
from studio.domain.cells import CellResult
from studio.domain.evaluation import PRESETS, Evaluation, EvaluationCell, System
from studio.domain.images import ImageRecord
from studio.domain.training_estimate import span
from studio.evaluation import Standing
from studio.evaluation_scores import WORDS, Analysis, SystemScore
from studio.offered_judges import OfferedJudge
from studio.paired import LEAST_PROMPTS, USUAL_SPREAD, prompts_needed
from tabs import controls, views
from tabs.run_grid_views import progress
from tabs.widgets import as_json

EMPTY = "What each system draws of the same prompts appears here, with what is better and how sure that is."
PAGE = 6
"""Prompts whose pictures show at once."""
_POINTS = (0.5, 1.0, 2.0)

PRESET_TITLES = {
    name: f"{name.capitalize()} — {prompts} prompts, {images} {'picture' if images == 1 else 'pictures'} each"
    for name, (prompts, images) in PRESETS.items()
}


def systems(evaluation: Evaluation | None, catalogue: Catalogue) -> str:
    """The value of the list of what is compared."""
    empty = "Nothing is compared yet. Choose an example, or add one below."
    if evaluation is None:
        return as_json(empty=empty, systems=[])
    rows = [
        {
            "name": system.name,
            "note": _note(system, catalogue),
            "is_baseline": system.name == evaluation.baseline,
            "is_control": system.is_control,
        }
        for system in evaluation.systems
    ]
    return as_json(empty=empty, systems=rows)


def _note(system: System, catalogue: Catalogue) -> str:
    recipe = system.recipe
    guidance = f"guidance {recipe.guidance_scale:g}" if recipe.uses_guidance else "no guidance"
    facts = [
        catalogue.checkpoint(recipe.checkpoint).title,
        f"{recipe.num_inference_steps} steps",
        guidance,
        views.title_of(catalogue.scheduler, recipe.scheduler),
    ]
    facts += [f"words before it: {system.trigger}"] if system.trigger else []
    return ("Control. " if system.is_control else "") + " · ".join(facts)


def comes_to(evaluation: Evaluation, seconds: float | None, fetched: Sequence[OfferedJudge] = ()) -> str:
    """How many pictures there will be, how long that takes, which judges are fetched before, and what it can show
    (HTML)."""
    count, prompts = len(evaluation.cells), len(evaluation.prompts)
    time = f", about {span(seconds)}" if seconds is not None else ""
    size = f"{len(evaluation.systems)} systems × {prompts} prompts × {evaluation.num_images}"
    first = [controls.note(f"{row.title} is fetched first: {row.megabytes} MB, once.") for row in fetched]
    return "".join([controls.note(f"{size}: {count:,} pictures{time}."), *first, controls.note(_power(prompts))])


def _power(prompts: int) -> str:
    if prompts < LEAST_PROMPTS:
        return f"Fewer than {LEAST_PROMPTS} prompts rank nothing: good to see whether all works."
    needed = {points: prompts_needed(points, 100 * USUAL_SPREAD) for points in _POINTS}
    seen = [points for points, count in needed.items() if count <= prompts]
    told = ", ".join(f"{count} for {points:g}" for points, count in needed.items())
    can = f"Differences of {min(seen):g} points of CLIP score will mostly be seen" if seen else "Only large ones show"
    return f"{can}. Prompts that it usually takes to see a difference of so many points: {told}."


def matrix(
    standing: Standing | None,
    analysis: Analysis | None,
    pictures: Mapping[int, ImageRecord],
    places: Sequence[int],
    picked: str | None = None,
) -> str:
    """The value of the table of pictures: a row for each picture of the prompts in `places`, a column for each
    system."""
    if standing is None:
        return as_json(empty=EMPTY, columns=[], rows=[], line="", percent=None, selected=None)
    evaluation = standing.evaluation
    if evaluation.axes:
        return _swept(standing, pictures, places, picked)
    told = {each.system.name: each for each in analysis.systems} if analysis else {}
    columns = [
        {"title": _title(system, evaluation), "note": _short(told.get(system.name))} for system in evaluation.systems
    ]
    wanted = set(places)
    rows: dict[tuple[int, int], dict[str, dict[str, str] | None]] = {}
    for cell in evaluation.cells:
        if cell.place in wanted:
            shown = _shown(cell, pictures.get(cell.index), standing.results.get(cell.index))
            rows.setdefault((cell.place, cell.image), {})[cell.system.name] = shown
    lines = [
        {
            "title": f"{evaluation.prompts[place].text} · seed {evaluation.seed_of(place, image)}",
            "cells": [rows[place, image].get(system.name) for system in evaluation.systems],
        }
        for place in places
        for image in range(evaluation.num_images)
    ]
    line, percent = progress(list(standing.job.events(timeout=0, previews=False)))
    return as_json(empty=EMPTY, columns=columns, rows=lines, line=line, percent=percent, selected=picked)


def _swept(standing: Standing, pictures: Mapping[int, ImageRecord], places: Sequence[int], picked: str | None) -> str:
    """The pictures of one prompt: the first axis across, the others and the pictures down."""
    evaluation, axes = standing.evaluation, list(standing.evaluation.axes)
    wanted = set(places)
    shown = {
        (cell.place, *cell.system.at, cell.image): _shown(
            cell, pictures.get(cell.index), standing.results.get(cell.index)
        )
        for cell in evaluation.cells
        if cell.place in wanted
    }
    rows = [
        {
            "title": " · ".join(
                [
                    evaluation.prompts[place].text,
                    *(f"{axis.title} {axis.labels[at]}" for axis, at in zip(axes[1:], down, strict=True)),
                    f"seed {evaluation.seed_of(place, image)}",
                ]
            ),
            "cells": [shown.get((place, across, *down, image)) for across in range(len(axes[0].values))],
        }
        for place in places
        for down in product(*(range(len(axis.values)) for axis in axes[1:]))
        for image in range(evaluation.num_images)
    ]
    columns = [{"title": f"{axes[0].title} {label}", "note": ""} for label in axes[0].labels]
    line, percent = progress(list(standing.job.events(timeout=0, previews=False)))
    return as_json(empty=EMPTY, columns=columns, rows=rows, line=line, percent=percent, selected=picked)


def _title(system: System, evaluation: Evaluation) -> str:
    return f"Baseline: {system.name}" if system.name == evaluation.baseline else system.name


def _short(score: SystemScore | None) -> str:
    if score is None:
        return ""
    said = [
        f"{WORDS[measure].title} {WORDS[measure].form(each.value)}"
        for measure, each in score.means.items()
        if measure != "second"
    ]
    return " · ".join(said)


def _shown(cell: EvaluationCell, record: ImageRecord | None, result: CellResult | None) -> dict[str, str] | None:
    if record is None:
        return None
    right = None if result is None else result.right
    said = "" if right is None else ", drawn right" if right else ", not drawn right"
    score = f"{100 * result.cosine:.1f}" if result and result.cosine is not None else ""
    mark = "" if right is None else "✓ " if right else "✗ "
    text = f"{cell.system.name}{said}: {cell.text}"
    return {"id": record.id, "thumb": views.thumb_url(record.id), "text": text, "note": f"{mark}{score}".strip()}


def page_size(evaluation: Evaluation) -> int:
    """How many prompts show at once: of a sweep one, whose pictures fill a grid."""
    return 1 if evaluation.axes else PAGE


def page_line(first: int, size: int, count: int) -> str:
    """Which prompts show, from the place `first` on (HTML)."""
    if size == 1:
        return controls.note(f"Prompt {first + 1} of {count}") if count else ""
    return controls.note(f"Prompts {first + 1}–{min(count, first + size)} of {count}") if count else ""


def choice(standing: Standing) -> tuple[str, str]:
    """An earlier evaluation as (label, id)."""
    evaluation = standing.evaluation
    begun = datetime.fromtimestamp(standing.begun_at).strftime("%d %b %H:%M")
    return f"{begun} · {evaluation.name} · {len(evaluation.prompts)} prompts", standing.id


def facts(record: ImageRecord, result: CellResult | None) -> str:
    """What is known of one picture (HTML)."""
    if result is None:
        return ""
    wrong = [skill for skill, is_right in (result.skills or {}).items() if not is_right]
    said = [f"Wrong: {', '.join(wrong)}."] if wrong else ["Everything as asked."] if result.skills else []
    said += [f"CLIP score {100 * result.cosine:.2f}."] if result.cosine is not None else []
    said += [f"Seed {record.recipe.seed}."]
    return f'<p class="note">{html.escape(" ".join(said))}</p>'
