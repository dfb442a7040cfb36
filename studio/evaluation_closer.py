"""What an evaluation says on a closer look, as HTML: how alike pictures are, every pair, every kind of prompt."""

import html
from collections.abc import Sequence
from functools import lru_cache

from studio.evaluation_groups import GroupScore, PairScore, by_group, every_pair
from studio.evaluation_likeness import SystemLikeness
from studio.evaluation_plots import WORD_CLASS, scrolled
from studio.evaluation_scores import WORDS, Analysis, MeasureId
from studio.evaluation_views import difference_html, scale_of
from studio.paired import Paired
from studio.statistics import Estimate

_COSINE, _COSINE_GAIN = "{:.3f}".format, "{:+.3f}".format


def likeness_html(analysis: Analysis) -> str:
    """How varied each system's pictures are, how like the baseline's, and how near to what its adapters learnt from; ""
    while nobody knows."""
    rows = analysis.likenesses
    told = [each for each in rows if each.varied or each.to_baseline or each.near]
    if not told:
        return ""
    has = {name: any(getattr(each, name) for each in rows) for name in ("varied", "against", "to_baseline", "near")}
    heads = ["System"]
    heads += ["Variety"] if has["varied"] else []
    heads += ["Variety: difference"] if has["against"] else []
    heads += ["Like the baseline's"] if has["to_baseline"] else []
    heads += ["Near what it learnt", "The same without adapter"] if has["near"] else []
    scale = scale_of([each.against for each in rows if each.against])
    lines = [_likeness_line(each, analysis, has, scale) for each in rows]
    warned = [
        f'<p class="field-warning">{html.escape(each.system.name)} may have learnt its pictures by heart: more of what '
        "it draws is near to one of them than chance and the model without it explain.</p>"
        for each in rows
        if each.may_have_learnt_by_heart
    ]
    note = _likeness_note(has)
    table = scrolled(_table(heads, lines), "How alike the pictures are")
    return f'<h3>How alike the pictures are</h3>{"".join(warned)}{table}<p class="note quiet">{html.escape(note)}</p>'


def _likeness_line(each: SystemLikeness, analysis: Analysis, has: dict[str, bool], scale: float) -> str:
    cells = [_words(each.varied)] if has["varied"] else []
    cells += [difference_html(each.against, _COSINE_GAIN, scale)] if has["against"] else []
    is_base = each.system.name == analysis.evaluation.baseline
    cells += ["baseline" if is_base else _words(each.to_baseline)] if has["to_baseline"] else []
    cells += [_share(each.near), _share(each.near_without)] if has["near"] else []
    return _row(each.system.name, cells)


def _likeness_note(has: dict[str, bool]) -> str:
    words = "As the judge sees it. "
    if has["varied"]:
        words += "Variety: 0 where all pictures of a prompt are the same, about 1 where they have nothing in common. "
    if has["to_baseline"]:
        words += "Like the baseline's: the cosine with its picture of the same prompt and seed, at most 1. "
    if has["near"]:
        words += (
            "Near what it learnt: the share of pictures nearer to one that the adapter learnt from than those are to "
            "each other; about 5 % are by chance. What the checker finds right does not count, nor do prompts that are "
            "captions. Where no checker can look, a subject that was learnt well is near, too: compare with the "
            "column beside it, and look at the pictures."
        )
    return words.strip()


def pairs_html(analysis: Analysis) -> str:
    """Every pair of systems, folded up; "" where the comparison with the baseline says it all."""
    measure = analysis.measure
    pairs = _pairs(analysis, measure) if measure else ()
    if not pairs or measure is None:
        return ""
    scale = scale_of([each.paired for each in pairs])
    lines = [
        _row(
            each.first,
            [
                _word(each.paired),
                html.escape(each.second),
                difference_html(each.paired, WORDS[measure].gain, scale),
            ],
        )
        for each in pairs
    ]
    heads = ["System", "Verdict", "Against", f"{WORDS[measure].title}: difference"]
    note = f"Holm's correction for all {len(pairs)} pairs, which asks for more than against the baseline alone."
    return _folded("Every pair", scrolled(_table(heads, lines), "Every pair"), note)


def groups_html(analysis: Analysis) -> str:
    """Every kind of prompt by itself, folded up; "" where there is one."""
    measure = analysis.measure
    groups = _groups(analysis, measure) if measure else ()
    if not groups or measure is None:
        return ""
    names = [each.system.name for each in analysis.systems if measure in each.against]
    scale = scale_of([paired for group in groups for paired in group.against.values()])
    lines = [
        _row(
            f"{group.group} ({group.n})",
            [_of_group(group.against.get(name), measure, scale) for name in names],
        )
        for group in groups
    ]
    note = (
        f"To explore: each system against {analysis.evaluation.baseline}, by {WORDS[measure].title.lower()}, with the "
        "number of prompts in brackets. So many questions at once find something by luck: p is after Benjamini and "
        "Hochberg, and what stands out here is worth an evaluation of its own."
    )
    return _folded("By kind of prompt", scrolled(_table(["Kind", *names], lines), "By kind of prompt"), note)


@lru_cache(maxsize=8)
def _pairs(analysis: Analysis, measure: MeasureId) -> tuple[PairScore, ...]:
    return every_pair(analysis, measure)


@lru_cache(maxsize=8)
def _groups(analysis: Analysis, measure: MeasureId) -> tuple[GroupScore, ...]:
    return by_group(analysis, measure)


def _of_group(paired: Paired | None, measure: MeasureId, scale: float) -> str:
    if paired is None:
        return "–"
    return f"{_word(paired)}<br>{difference_html(paired, WORDS[measure].gain, scale)}"


def _word(paired: Paired) -> str:
    return f'<span class="word {WORD_CLASS.get(paired.verdict, "")}">{html.escape(paired.verdict)}</span>'


def _words(estimate: Estimate | None) -> str:
    return f'<span class="number">{html.escape(estimate.words(_COSINE))}</span>' if estimate else "–"


def _share(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    words = html.escape(estimate.words(lambda value: f"{100 * value:.0f} %"))
    return f'<span class="number">{words}</span><br><small>{estimate.n} pictures</small>'


def _row(name: str, cells: Sequence[str]) -> str:
    return f'<tr><th scope="row">{html.escape(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _table(heads: Sequence[str], lines: Sequence[str]) -> str:
    shown = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in heads)
    return f'<table class="figures"><thead><tr>{shown}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _folded(title: str, table: str, note: str) -> str:
    return (
        f'<details class="closer"><summary>{html.escape(title)}</summary>{table}'
        f'<p class="note quiet">{html.escape(note)}</p></details>'
    )
