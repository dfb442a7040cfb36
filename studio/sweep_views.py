"""What a sweep says, as HTML: its grid with a score in every cell, and which cells are best."""

import html
from collections.abc import Iterator, Sequence

from studio.evaluation_plots import scrolled
from studio.evaluation_scores import WORDS, Analysis, MeasureId, SystemScore, differences, estimate_of
from studio.paired import LEAST_PROMPTS, compare_all


def sweep_html(analysis: Analysis) -> str:
    """The grid: the first axis across, the second down, one table for each value of the third. "" for what is no
    sweep, and while nothing is drawn."""
    axes, measure = list(analysis.evaluation.axes), analysis.measure
    if not axes or measure is None:
        return ""
    scores = {each.system.at: each for each in analysis.systems}
    values = [each.means[measure].value for each in analysis.systems if measure in each.means]
    parts = [f'<p class="note">{html.escape(sweep_words(analysis))}</p>']
    for deep in range(len(axes[2].values)) if len(axes) > 2 else [None]:
        if deep is not None:
            parts.append(f"<h3>{html.escape(f'{axes[2].title}: {axes[2].labels[deep]}')}</h3>")
        parts.append(_table(analysis, scores, deep, (min(values), max(values))))
    return "".join(parts)


def _table(
    analysis: Analysis, scores: dict[tuple[int, ...], SystemScore], deep: int | None, ends: tuple[float, float]
) -> str:
    axes, measure = list(analysis.evaluation.axes), analysis.measure
    assert measure is not None
    heads = "".join(f'<th scope="col">{html.escape(label)}</th>' for label in axes[0].labels)
    lines: list[str] = []
    for down in range(len(axes[1].values)) if len(axes) > 1 else [None]:
        tail = tuple(place for place in (down, deep) if place is not None)
        cells = "".join(_cell(scores.get((across, *tail)), measure, ends) for across in range(len(axes[0].values)))
        title = "" if down is None else axes[1].labels[down]
        lines.append(f'<tr><th scope="row">{html.escape(title)}</th>{cells}</tr>')
    corner = f"{axes[1].title} ↓ · {axes[0].title} →" if len(axes) > 1 else f"{axes[0].title} →"
    head = f"<thead><tr><td>{html.escape(corner)}</td>{heads}</tr></thead>"
    return scrolled(f'<table class="figures sweep">{head}<tbody>{"".join(lines)}</tbody></table>', "Sweep")


def _cell(score: SystemScore | None, measure: MeasureId, ends: tuple[float, float]) -> str:
    if score is None or measure not in score.means:
        return "<td>–</td>"
    estimate = score.means[measure]
    share = (estimate.value - ends[0]) / max(ends[1] - ends[0], 1e-9)
    other = score.means.get("clip") if measure == "right" else None
    beside = f"<br><small>CLIP {other.value:.1f}</small>" if other else ""
    words = estimate.words(WORDS[measure].form)
    return (
        f'<td style="background:color-mix(in srgb, var(--good) {round(40 * share)}%, transparent)" '
        f'title="{html.escape(words)}"><strong>{html.escape(WORDS[measure].form(estimate.value))}</strong>{beside}</td>'
    )


def sweep_words(analysis: Analysis) -> str:
    """Which cell is best, and how many others cannot be told from it; "" while nothing can be said."""
    measure = analysis.measure
    if measure is None or not analysis.places:
        return ""
    if len(analysis.places) < LEAST_PROMPTS:
        return f"{len(analysis.places)} prompts are too few to say which is best: {LEAST_PROMPTS} at least."
    scored = [each for each in analysis.systems if measure in each.means]
    best = max(scored, key=lambda each: each.means[measure].value)
    alike = list(_alike(best, scored, measure, analysis))
    title = WORDS[measure].title
    words = f"Best by {title if measure == 'clip' else title.lower()} is {best.system.name}: "
    words += f"{best.means[measure].words(WORDS[measure].form)}."
    if not alike:
        return f"{words} Every other cell is worse."
    some = f": {', '.join(alike[:4])}{' …' if len(alike) > 4 else ''}"
    return f"{words} {len(alike)} of {len(scored) - 1} others cannot be told from it{some}."


def _alike(best: SystemScore, scored: Sequence[SystemScore], measure: MeasureId, analysis: Analysis) -> Iterator[str]:
    """The names of those that the best one is not surely better than."""
    others = [each for each in scored if each is not best]
    pairs = [differences(best.by_prompt[measure], each.by_prompt[measure]) for each in others]
    estimate = estimate_of(measure)
    for each, paired in zip(others, compare_all(pairs, 0.0, estimate), strict=True):
        if paired.verdict != "better":
            yield each.system.name
