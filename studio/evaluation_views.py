"""What an evaluation says, as HTML that needs nothing else: on the page and in the report. Everything typed by a person
is escaped here.

Colours are the variables `--good`, `--bad`, `--quiet`, `--line`, `--accent-text` of whatever it stands in.
"""

import html
from collections.abc import Callable, Iterable, Sequence

from studio.evaluation_plots import WORD_CLASS, interval_svg, scrolled
from studio.evaluation_scores import (
    MEASURES,
    WORDS,
    Analysis,
    MeasureId,
    SystemScore,
    agreement,
    disagreement,
    headline,
    p_words,
)
from studio.paired import Paired
from studio.statistics import Estimate


def verdict_html(analysis: Analysis) -> str:
    """The sentence that says what is better and how sure that is, and what else is to be known of it."""
    if not analysis.places:
        return ""
    lines = [f'<p class="verdict-line">{html.escape(headline(analysis))}</p>']
    if words := disagreement(analysis):
        lines.append(f'<p class="field-warning">{html.escape(words)}</p>')
    lines += [f'<p class="note">{html.escape(words)}</p>'] if (words := agreement(analysis)) else []
    lines += [f'<p class="note quiet">{html.escape(words)}</p>' for words in _advice(analysis)]
    return "".join(lines)


def table_html(analysis: Analysis) -> str:
    """Each system against the baseline: verdict and difference first, what it scores after; "" while nothing is."""
    if not analysis.systems:
        return ""
    measures: list[MeasureId] = [each for each in MEASURES if any(each in system.means for system in analysis.systems)]
    heads = ["System", "Verdict"]
    for measure in measures:
        heads += [f"{WORDS[measure].title}: difference"] if analysis.evaluation.others else []
    heads += [WORDS[measure].title for measure in measures] + ["Seconds a picture", "Pictures"]
    scales: dict[MeasureId, float] = {
        measure: scale_of([each.against[measure] for each in analysis.systems if measure in each.against])
        for measure in measures
    }
    lines = [_line(each, analysis, measures, scales) for each in analysis.systems]
    shown = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in heads)
    table = f'<table class="figures"><thead><tr>{shown}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'{scrolled(table, "Systems")}<p class="note quiet">{html.escape(_note(analysis))}</p>'


def _line(score: SystemScore, analysis: Analysis, measures: Sequence[MeasureId], scales: dict[MeasureId, float]) -> str:
    is_base = score.system.name == analysis.evaluation.baseline
    first = next((score.against[measure] for measure in measures if measure in score.against), None)
    word = "baseline" if is_base else first.verdict if first else ""
    cells = [f'<td><span class="word {WORD_CLASS.get(word, "")}">{html.escape(word) or "–"}</span></td>']
    for measure in measures if analysis.evaluation.others else ():
        paired = score.against.get(measure)
        cells.append(f"<td>{difference_html(paired, WORDS[measure].gain, scales[measure])}</td>")
    for measure in measures:
        estimate = score.means.get(measure)
        cells.append(f"<td>{_mean_html(estimate, measure)}</td>")
    failed = f", {score.failed} failed" if score.failed else ""
    cells.append(f"<td>{f'{score.seconds.median:.2f}' if score.seconds else '–'}</td><td>{score.n}{failed}</td>")
    return f'<tr><th scope="row">{html.escape(score.system.name)}</th>{"".join(cells)}</tr>'


def _mean_html(estimate: Estimate | None, measure: MeasureId) -> str:
    """A mean; of CLIP scores also as others write them, who leave the cosine as it is or multiply it by 2.5 (Hessel et
    al., 2021)."""
    if estimate is None:
        return "–"
    words = html.escape(estimate.words(WORDS[measure].form))
    if measure == "right":
        return words
    cosine = estimate.value / 100
    return f"{words}<br><small>cosine {cosine:.4f}, × 2.5: {2.5 * max(0.0, cosine):.3f}</small>"


def difference_html(paired: Paired | None, gain: Callable[[float], str], scale: float) -> str:
    """A difference in words and as a plot whose ends stand for `scale`, with how sure it is; "–" for none."""
    if paired is None:
        return "–"
    words = paired.difference.words(gain)
    wins = f"ahead in {paired.win_rate.value:.0%}"
    shown = f'<span class="number">{html.escape(words)}</span>{interval_svg(paired, scale)}'
    return f"{shown}<small>{p_words(paired.adjusted)}, {wins}</small>"


def scale_of(shown: Iterable[Paired]) -> float:
    """What the end of an interval's plot stands for, where these are shown together."""
    ends = [abs(end) for each in shown for end in (each.difference.low, each.difference.high) if end is not None]
    return max([*ends, 1e-9]) * 1.08


def skills_html(analysis: Analysis) -> str:
    """How often each thing that a prompt asks for is right, where the checker can tell."""
    names = list(dict.fromkeys(skill for each in analysis.systems for skill in each.skills))
    if not names:
        return ""
    heads = "".join(f'<th scope="col">{html.escape(name.capitalize())}</th>' for name in names)
    lines: list[str] = []
    for each in analysis.systems:
        cells = "".join(
            f"<td>{html.escape(each.skills[name].words('{:.0f}'.format))}</td>" if name in each.skills else "<td>–</td>"
            for name in names
        )
        lines.append(f'<tr><th scope="row">{html.escape(each.system.name)}</th>{cells}</tr>')
    head = f"<thead><tr><td></td>{heads}</tr></thead>"
    table = f'<table class="figures">{head}<tbody>{"".join(lines)}</tbody></table>'
    return f"<h3>What is right, in percent</h3>{scrolled(table, 'What is right')}"


def _advice(analysis: Analysis) -> list[str]:
    """How many prompts it would take to tell those apart that cannot be told yet."""
    undecided = [
        paired
        for each in analysis.systems
        for measure, paired in each.against.items()
        if measure == analysis.measure and paired.verdict in ("undecided", "too few prompts")
    ]
    if not undecided or not analysis.places:
        return []
    widths = [
        (paired.difference.high - paired.difference.low) / 2
        for paired in undecided
        if paired.difference.low is not None and paired.difference.high is not None
    ]
    widest = max(widths, default=0.0)
    margin = undecided[0].margin or widest / 2
    needed = int(len(analysis.places) * (widest / max(margin, 1e-9)) ** 2) + 1
    words = f"To tell a difference of {margin:g} points it would take about {needed:,} prompts"
    return [f"{words}; there are {len(analysis.places)}."] if needed > len(analysis.places) else []


def _note(analysis: Analysis) -> str:
    evaluation = analysis.evaluation
    pictures = "one picture" if evaluation.num_images == 1 else f"{evaluation.num_images} pictures"
    words = (
        f"{len(analysis.places)} of {len(evaluation.prompts)} prompts with {pictures} each; in square brackets "
        "the 95 % interval over prompts. Differences are paired, prompt by prompt; p by sign flips, after Holm."
    )
    if analysis.judge:
        words += f" CLIP score: cosine × 100, by {analysis.judge}, the prompt as it is written."
        cut = sum(each.truncated for each in analysis.systems)
        words += f" It read only the beginning of the prompts of {cut} pictures." if cut else ""
    words += f" Second judge: {analysis.second_judge}." if analysis.second_judge else ""
    return words
