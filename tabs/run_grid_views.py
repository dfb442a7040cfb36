"""What the grid over a run's checkpoints says: pictures, scores, which is best, how far it is. Pure functions."""

import html
from collections.abc import Callable, Sequence

from studio.domain.events import (
    Cancelled,
    Drawing,
    Event,
    Failed,
    Fetching,
    Finished,
    Held,
    ImageReady,
    Progress,
    Queued,
    Started,
)
from studio.domain.run_grid import GridCell, GridColumn
from studio.domain.training import TrainingPlan
from studio.evaluation_plots import scrolled
from studio.run_grid import RunGrid
from studio.run_grid_overfit import overfit
from studio.run_grid_scores import ColumnScore, clip_words, interval, ordinary_words
from studio.run_grid_scores import verdict as best_words
from studio.runs import Run
from tabs import controls, views
from tabs.widgets import as_json

EMPTY = "The same prompts and seeds appear here, drawn with each checkpoint and without any."
_NOTE = (
    "In square brackets the 95 % interval: Wilson's over pictures for what is drawn right, as the checker sees it; for "
    "CLIP scores over prompts, whose seeds are averaged first. The best of many owes some of its lead to luck."
)
_DIVERSITY = (
    "Diversity: 1 less the mean cosine of two pictures of one prompt, as the judge sees them; 0 is the same picture "
    "every time."
)
_NEAR = (
    "Near a training picture: nearer than 95 % of these are to the one most like them, and not drawn right; prompts "
    "that are captions do not count. Where nobody can tell what is right, what is near may be so with good reason."
)
_ORDINARY = (
    "Ordinary prompts do not call what was learnt, and count in that column alone: what the model knew should stay."
)
_TITLE_LENGTH = 60


def kept(run: Run[TrainingPlan]) -> str:
    """What there is to compare, and what that takes on disk (HTML)."""
    files = run.checkpoints.values()
    megabytes = sum(path.stat().st_size for path in files if path.is_file()) / 1e6
    words = f"{len(files)} checkpoints are kept" if len(files) > 1 else "One checkpoint is kept"
    return controls.note(f"{words}, {megabytes:.1f} MB. Training waits while pictures are drawn.")


def step_choices(run: Run[TrainingPlan]) -> list[tuple[str, int]]:
    """The checkpoints there are, as (label, step)."""
    best = run.best.step if run.best else None
    return [(f"{step}, best look" if step == best else f"{step}", step) for step in run.checkpoints]


def comes_to(columns: int, rows: int) -> str:
    """How many pictures there will be (HTML)."""
    return controls.note(f"{columns} columns, one without an adapter, of {rows} pictures: {columns * rows} in all.")


def matrix(grid: RunGrid | None, scores: Sequence[ColumnScore], picked: str | None) -> str:
    """The value of the table of pictures: a row for each prompt and seed, a column for each adapter at a scale."""
    if grid is None:
        return as_json(empty=EMPTY, columns=[], rows=[], line="", percent=None, selected=None)
    told = {score.column: score for score in scores}
    cells = {(cell.row, cell.column): _shown(grid, cell) for cell in grid.grid.cells()}
    rows = [
        {"title": _row_title(prompt, seed), "cells": [cells[row, column] for column in grid.grid.columns]}
        for row, (prompt, seed) in enumerate(grid.grid.rows)
    ]
    columns = [
        {"id": column.name, "title": _head(column), "note": _short(column, told.get(column))}
        for column in grid.grid.columns
    ]
    line, percent = progress(list(grid.job.events(timeout=0, previews=False)) if grid.job else [])
    return as_json(empty=EMPTY, columns=columns, rows=rows, line=line, percent=percent, selected=picked)


def _shown(grid: RunGrid, cell: GridCell) -> dict[str, str] | None:
    record, result = grid.pictures.get(cell.index), grid.results.get(cell.index)
    if record is None:
        return None
    is_right = result.right if result else None
    said = "" if is_right is None else ", drawn right" if is_right else ", not drawn right"
    text = f"{cell.column.title}{said}: {grid.grid.rows[cell.row][0]}"
    return {"id": f"{cell.column.name}/{cell.row}", "thumb": views.thumb_url(record.id), "text": text}


def progress(events: Sequence[Event]) -> tuple[str, float | None]:
    """What to say of a grid that told `events` so far, and how much is done in percent (None: nothing runs)."""
    telling = [event for event in events if not isinstance(event, ImageReady)]
    match telling[-1] if telling else None:
        case Queued() as event:
            return f"{views.place_in_line(event)} …", 0.0
        case Started():
            return "Looking for what is drawn already …", 0.0
        case Drawing():
            return "Getting the model ready …", 0.0
        case Fetching() as event:
            return views.fetching_line(event), 100 * event.done_bytes / max(1, event.total_bytes)
        case Held() as event:
            return views.held_line(event), 0.0
        case Progress() as event:
            done = event.image_index + event.step / event.total
            return views.progress_line(event), 100 * done / event.num_images
        case Finished(summary=summary):
            return f"Done: {summary['num_images']} pictures in {views.duration(summary['seconds'])}.", None
        case Cancelled():
            return "Stopped. What was drawn is kept, and not drawn again.", None
        case Failed(message=message, hint=hint):
            return f"{message} {hint}".strip(), None
    return "", None


def table(scores: Sequence[ColumnScore], judge: str = "") -> str:
    """The scores as a table (HTML), a row for each column of the grid; what nothing can be said of is left out."""
    if not scores:
        return ""
    parts: list[tuple[str, Callable[[ColumnScore], str]]] = [
        ("Drawn right", lambda score: interval(score.right) if score.right else ""),
        ("CLIP score", lambda score: clip_words(score.clip, "{:.1f}".format) if score.clip else ""),
        ("Above that without", lambda score: clip_words(score.clip_gain, "{:+.1f}".format) if score.clip_gain else ""),
        ("Diversity", lambda score: score.diversity.words("{:.3f}".format) if score.diversity else ""),
        ("Near a training picture", lambda score: interval(score.near) if score.near else ""),
        ("Ordinary prompts", ordinary_words),
        ("Pictures", lambda score: f"{score.n}, {score.failed} failed" if score.failed else f"{score.n}"),
    ]
    shown = [(title, words) for title, words in parts if any(words(score) for score in scores)]
    heads = "".join(f'<th scope="col">{title}</th>' for title, _ in shown)
    lines = "".join(
        f'<tr><th scope="row">{html.escape(score.column.title)}</th>'
        + "".join(f"<td>{html.escape(words(score)) or '–'}</td>" for _, words in shown)
        + "</tr>"
        for score in scores
    )
    shown_table = f'<table class="figures"><thead><tr><td></td>{heads}</tr></thead><tbody>{lines}</tbody></table>'
    told = f" CLIP score: cosine × 100 by {judge}." if judge else ""
    told += f" {_DIVERSITY}" if any(score.diversity for score in scores) else ""
    told += f" {_NEAR}" if any(score.near for score in scores) else ""
    told += f" {_ORDINARY}" if any(score.ordinary for score in scores) else ""
    return f'{scrolled(shown_table, "Scores")}<p class="note quiet">{_NOTE}{html.escape(told)}</p>'


def verdict(scores: Sequence[ColumnScore]) -> str:
    """Which column is best, and a warning for each that may have learnt too much (HTML)."""
    return controls.note(best_words(scores)) + "".join(controls.warning_html(words) for words in overfit(scores))


def chosen(column: GridColumn | None) -> str:
    """Which column a click has chosen, or the scores have (HTML)."""
    if column is None:
        return ""
    name = column.title.replace("Step", "step") if column.use else "the model without an adapter"
    return controls.note(f"Chosen: {name}.")


def _head(column: GridColumn) -> str:
    return f"Step {column.step}" if column.use else "Without it"


def _short(column: GridColumn, score: ColumnScore | None) -> str:
    scale = [f"scale {column.use.lora_scale:g}" if column.use else "scale 0"]
    right = [f"{score.right.value:.0%} right"] if score and score.right else []
    return " · ".join([*scale, *right])


def _row_title(prompt: str, seed: int) -> str:
    short = prompt if len(prompt) <= _TITLE_LENGTH else prompt[: _TITLE_LENGTH - 1] + "…"
    return f"{short} · seed {seed}"
