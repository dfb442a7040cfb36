"""What the Flash tab says: the pictures side by side, the table of figures, the plot. Pure functions, no components."""

import html
import math
from collections.abc import Callable, Mapping, Sequence

from studio.comparison import Figures
from studio.domain.events import (
    Cancelled,
    Drawing,
    Event,
    Fetching,
    Finished,
    Held,
    ImageReady,
    Progress,
    Queued,
    Started,
)
from studio.domain.flash import Comparison
from studio.domain.images import ImageRecord
from studio.statistics import Estimate, Spread
from tabs import views
from tabs.widgets import as_json

EMPTY = "The same prompts and seeds, drawn in a few steps and in many, appear here side by side, with what each takes."
_TITLE_LENGTH = 60


def matrix(
    comparison: Comparison | None,
    pictures: Mapping[int, ImageRecord],
    figures: Sequence[Figures],
    line: str = "",
    percent: float | None = None,
    selected: str | None = None,
) -> str:
    """The value of the table of pictures: a row for each prompt and seed, a column for each way of drawing."""
    if comparison is None:
        return as_json(empty=EMPTY, columns=[], rows=[], line=line, percent=percent, selected=None)
    told = {each.column.name: _short(each) for each in figures}
    rows: dict[int, dict[str, object]] = {}
    for cell in comparison.cells():
        row = rows.setdefault(cell.row, {"title": _row_title(cell.recipe.prompt, cell.recipe.seed), "cells": []})
        record = pictures.get(cell.index)
        shown = record and {
            "id": record.id,
            "thumb": views.thumb_url(record.id),
            "text": f"{cell.column.title}: {views.alt_text(record)}",
        }
        cells = row["cells"]
        assert isinstance(cells, list)
        cells.append(shown)
    columns = [
        {"title": ("Baseline: " if column.is_baseline else "") + column.title, "note": told.get(column.name, "")}
        for column in comparison.columns
    ]
    return as_json(
        empty=EMPTY, columns=columns, rows=list(rows.values()), line=line, percent=percent, selected=selected
    )


def progress(events: Sequence[Event]) -> tuple[str, float | None]:
    """What to say of a comparison that told `events` so far, and how much is done in percent (None: nothing runs)."""
    telling = [event for event in events if not isinstance(event, ImageReady | Started)]
    match telling[-1] if telling else None:
        case Queued() as event:
            return f"{views.place_in_line(event)} …", 0.0
        case Drawing():
            return "Getting ready: each way of drawing warms up once …", 0.0
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
            return "Stopped. What was drawn is kept.", None
    return "", None


def table(figures: Sequence[Figures], judged_by: str = "") -> str:
    """The figures as a table (HTML); rows that nothing can be said in are left out. `judged_by` says what the CLIP
    scores are."""
    if not figures:
        return ""
    rows: list[tuple[str, Callable[[Figures], str]]] = [
        ("Seconds a picture", lambda each: _seconds(each.seconds["total"])),
        ("Text, UNet, decoder", lambda each: " / ".join(f"{each.seconds[p].median:.2f}" for p in _PHASES)),
        ("Calls of the UNet", lambda each: str(each.column.evaluations)),
        ("Speed-up", lambda each: _estimate(each.speed_up, "{:.1f}×".format)),
        ("Peak memory", lambda each: views.memory(each.peak_memory_mb)),
        ("Likeness to the baseline", lambda each: _estimate(each.likeness, "{:.2f}".format)),
        ("Drawn right, by the checker", lambda each: _estimate(each.right, "{:.0%}".format)),
        ("CLIP score", lambda each: _estimate(each.clip, "{:.1f}".format)),
        ("CLIP score above the baseline", lambda each: _estimate(each.clip_gain, "{:+.1f}".format)),
        ("Pictures", lambda each: str(each.n)),
    ]
    heads = "".join(f'<th scope="col">{html.escape(_name(each))}</th>' for each in figures)
    lines = []
    for title, words in rows:
        cells = [words(each) for each in figures]
        if any(cells):
            shown = "".join(f"<td>{html.escape(cell) or '–'}</td>" for cell in cells)
            lines.append(f'<tr><th scope="row">{html.escape(title)}</th>{shown}</tr>')
    note = (
        "Medians; in round brackets the quartiles, in square ones the 95 % interval. Likeness: structural similarity, "
        "1 for the same picture. The first picture of each column warmed up and was not counted."
    )
    if any(each.column.recipe.decoder == "half" for each in figures):
        note += " Few steps are decoded in half precision."
    note = f"{note} {judged_by}".strip()
    return (
        f'<div class="figures-scroll"><table class="figures"><thead><tr><td></td>{heads}</tr></thead>'
        f'<tbody>{"".join(lines)}</tbody></table></div><p class="note quiet">{html.escape(note)}</p>'
    )


def frontier(figures: Sequence[Figures]) -> dict[str, list[object]]:
    """Speed and quality of each column, for the plot: by the checker where it can judge, else by likeness. Both kinds
    of column are in it from the first, if without a place: the plot gives colours to those that it meets first."""
    points: dict[str, list[object]] = {
        "seconds": [math.nan, math.nan],
        "quality": [math.nan, math.nan],
        "way": ["", ""],
        "kind": list(_KINDS),
    }
    for each in figures:
        quality = each.right or each.likeness
        value = 1.0 if quality is None and each.column.is_baseline else quality and quality.value
        if value is not None:
            points["seconds"].append(round(each.seconds["total"].median, 3))
            points["quality"].append(round(float(value), 3))
            points["way"].append(each.column.title)
            points["kind"].append(_KINDS[not each.column.is_baseline])
    return points


_KINDS = ("Baseline", "Few steps")
_PHASES = ("text", "denoise", "decode")


def _name(each: Figures) -> str:
    return ("Baseline: " if each.column.is_baseline else "") + each.column.title


def _short(each: Figures) -> str:
    speed_up = f" · {each.speed_up.value:.1f}× faster" if each.speed_up else ""
    right = f" · {each.right.value:.0%} right" if each.right else ""
    return f"{each.seconds['total'].median:.2f} s{speed_up}{right}"


def _row_title(prompt: str, seed: int) -> str:
    short = prompt if len(prompt) <= _TITLE_LENGTH else prompt[: _TITLE_LENGTH - 1] + "…"
    return f"{short} · seed {seed}"


def _seconds(values: Spread) -> str:
    return f"{values.median:.2f} ({values.lower:.2f}–{values.upper:.2f})"


def _estimate(estimate: Estimate | None, form: Callable[[float], str]) -> str:
    return estimate.words(form) if estimate else ""
