"""Which checkpoint is best: what each column of a grid scored, with how sure that is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from studio.comparison import over_prompts
from studio.diversity import memorisation, prompt_diversities
from studio.diversity import over_prompts as over_diversities
from studio.domain.cells import CellResult
from studio.domain.run_grid import Grid, GridColumn
from studio.domain.wording import listed
from studio.paired import LEAST_PROMPTS, Paired
from studio.run_grid_embeddings import Likeness
from studio.run_grid_ordinary import ordinary_scores
from studio.statistics import Estimate, share

_NAMED = 3
"""Equals that are called by their names, at most."""


@dataclass(frozen=True, kw_only=True)
class ColumnScore:
    """Of one column, over its `n` cells so far, of which `failed` could not be drawn. `right` is the share that the
    checker passes, a cell that failed counting as wrong; `clip` is the CLIP score (cosine · 100) and `clip_gain` how
    much it is above that without an adapter. Their unit is the prompt, and its seeds are averaged first.

    `diversity` is how unlike its pictures of one prompt are, and `diversities` that by prompt; `near` is the share of
    its pictures that are nearer to a training picture than those are to each other (see `studio.diversity`), without
    those that the checker passes: they show what they should, and so no training picture. Nor do pictures count whose
    prompt is a training picture's caption, which are like it with good reason; None where there are no others.

    `ordinary` tells of the prompts that do not call what was learnt, which count for nothing else: the share that the
    checker passes (`ordinary_is_share`), else the CLIP score; `ordinary_against` is how that differs from the model
    without an adapter."""

    column: GridColumn
    n: int
    failed: int
    right: Estimate | None
    clip: Estimate | None
    clip_gain: Estimate | None
    diversity: Estimate | None = None
    diversities: Mapping[str, float] = field(default_factory=dict[str, float])
    near: Estimate | None = None
    ordinary: Estimate | None = None
    ordinary_is_share: bool = False
    ordinary_against: Paired | None = None


def column_scores(
    grid: Grid, results: Mapping[int, CellResult], likeness: Likeness | None = None
) -> tuple[ColumnScore, ...]:
    """Of every column that has a cell yet; `results` are by the index of their cell. As soon as all columns have a row,
    only such rows count: of a grid that was stopped, too, all columns are compared by the same. Without `likeness`
    nothing is told of how varied pictures are, nor of training pictures."""
    by_column: dict[GridColumn, dict[int, CellResult]] = {column: {} for column in grid.columns}
    for cell in grid.cells():
        if cell.index in results:
            by_column[cell.column][cell.row] = results[cell.index]
    common = set[int].intersection(*(set(rows) for rows in by_column.values()))
    if common:
        by_column = {
            column: {row: result for row, result in rows.items() if row in common} for column, rows in by_column.items()
        }
    called = {
        column: {row: result for row, result in rows.items() if not grid.is_ordinary(row)}
        for column, rows in by_column.items()
    }
    clips = {column: _clips(rows) for column, rows in called.items()}
    without = clips[grid.columns[0]]
    scored = [_score(column, rows, clips[column], without, grid) for column, rows in called.items() if rows]
    kept = ordinary_scores(
        {
            column: {row: result for row, result in rows.items() if grid.is_ordinary(row)}
            for column, rows in by_column.items()
        }
    )
    scored = [replace(score, **kept[score.column]) for score in scored]
    return tuple(scored if likeness is None else (_likened(score, called, grid, likeness) for score in scored))


def _likened(
    score: ColumnScore, by_column: Mapping[GridColumn, Mapping[int, CellResult]], grid: Grid, likeness: Likeness
) -> ColumnScore:
    """`score` with what embeddings tell of its pictures."""
    rows = by_column[score.column]
    cells = likeness.cells
    seen = {grid.rows[row]: cells[result.index] for row, result in rows.items() if result.index in cells}
    right = {grid.rows[row] for row, result in rows.items() if result.right}
    new = {drawn: vector for drawn, vector in seen.items() if not likeness.is_caption(drawn[0])}
    diversities, copied = prompt_diversities(seen), memorisation(new, likeness.training, right)
    return replace(
        score,
        diversity=over_diversities(diversities),
        diversities=diversities,
        near=copied and copied.share,
    )


def _clips(rows: Mapping[int, CellResult]) -> dict[int, float]:
    return {row: 100 * result.cosine for row, result in rows.items() if result.cosine is not None}


def _score(
    column: GridColumn,
    rows: Mapping[int, CellResult],
    clips: Mapping[int, float],
    without: Mapping[int, float],
    grid: Grid,
) -> ColumnScore:
    verdicts = [result.right for result in rows.values() if result.right is not None]
    gains = {row: clips[row] - without[row] for row in clips if row in without} if column.use else {}
    return ColumnScore(
        column=column,
        n=len(rows),
        failed=sum(bool(result.problem) for result in rows.values()),
        right=share(sum(verdicts), len(verdicts)) if verdicts else None,
        clip=over_prompts(clips, len(grid.seeds)),
        clip_gain=over_prompts(gains, len(grid.seeds)),
    )


def best_of(scores: Sequence[ColumnScore]) -> tuple[ColumnScore, ...]:
    """The best of the columns with an adapter, by what is drawn right, else by the CLIP score above that without one;
    several that are exactly equal, none where nothing is measured."""
    measured = [score for score in scores if score.column.use and measure_of(score) is not None]
    if any(score.right for score in measured):
        measured = [score for score in measured if score.right]
    top = max((_value(score) for score in measured), default=0.0)
    return tuple(score for score in measured if _value(score) == top)


def verdict(scores: Sequence[ColumnScore]) -> str:
    """Which column is best, in sentences, and whether that may be luck; "" while there is nothing to say."""
    best = best_of(scores)
    if not best:
        return ""
    top = best[0]
    if not top.right and top.clip_gain and top.clip_gain.n < LEAST_PROMPTS:
        few = f"{top.clip_gain.n} prompts are" if top.clip_gain.n > 1 else "One prompt is"
        return f"{few} too few to say which is best by CLIP score. Of {LEAST_PROMPTS} or more it can be told."
    if top.right and not top.right.value:
        return f"No checkpoint draws any of its {top.right.n} pictures right."
    names = [score.column.title.replace("Step", "step") for score in best]
    who = f"{'Best is' if len(names) == 1 else 'Equally good are'} {listed(names)}"
    if len(names) > _NAMED:
        who = f"{len(names)} are equally good, {names[0]} among them"
    rivals = [score for score in scores if score.column.use and score not in best and _overlap(score, top)]
    return f"{who}: {_words(top)}.{_rivals(len(rivals), len(best))}{_without(scores, top)}"


def _words(score: ColumnScore) -> str:
    if score.right:
        right = round(score.right.value * score.right.n)
        return f"{right} of {score.right.n} pictures show what their prompt says, {interval(score.right)}"
    assert score.clip_gain
    return f"its CLIP score is {score.clip_gain.words('{:+.1f}'.format)} above that without an adapter"


def clip_words(estimate: Estimate, form: Callable[[float], str]) -> str:
    """A CLIP score with its interval; over fewer prompts than that can be told of, without."""
    return form(estimate.value) if estimate.n < LEAST_PROMPTS else estimate.words(form)


def ordinary_words(score: ColumnScore) -> str:
    """How well a column follows ordinary prompts; "" where nothing is known."""
    if score.ordinary is None:
        return ""
    return interval(score.ordinary) if score.ordinary_is_share else clip_words(score.ordinary, "{:.1f}".format)


def interval(estimate: Estimate) -> str:
    """ "94 % [72–99 %]": a share with its 95 % interval."""
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:.0f} %"
    return f"{100 * estimate.value:.0f} % [{100 * estimate.low:.0f}–{100 * estimate.high:.0f} %]"


def _rivals(count: int, ties: int) -> str:
    if count:
        others = f"The intervals of {count} others overlap" if count > 1 else "The interval of one other overlaps"
        return f" {others} with that, so it may be luck: more seeds or prompts would tell."
    return "" if ties > 1 else " No other interval overlaps with that."


def _without(scores: Sequence[ColumnScore], best: ColumnScore) -> str:
    """How the model without an adapter does beside it."""
    control = next((score for score in scores if score.column.use is None), None)
    if best.right and control and control.right:
        is_sure = not _overlap(control, best)
        luck = "" if is_sure else ", which may be as good"
        return f" Without an adapter it is {interval(control.right)}{luck}."
    if not best.right and best.clip_gain and best.clip_gain.low is not None and best.clip_gain.low <= 0:
        return " Without an adapter the score may be as high."
    return ""


def measure_of(score: ColumnScore) -> Estimate | None:
    """What a column is ranked by; None where nothing is measured."""
    return score.right or score.clip_gain


def _value(score: ColumnScore) -> float:
    measure = measure_of(score)
    assert measure is not None
    return measure.value


def _overlap(one: ColumnScore, other: ColumnScore) -> bool:
    """Whether their intervals do, as far as there are any: of too few, all overlap."""
    a, b = measure_of(one), measure_of(other)
    if a is None or b is None or None in (a.low, a.high, b.low, b.high):
        return True
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
    return a.low <= b.high and b.low <= a.high
