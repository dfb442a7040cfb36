"""What a probe says, as HTML that needs nothing else: on the page and in the report. Everything typed by a person is
escaped here.

Colours are the variables `--quiet`, `--line`, `--accent-text` of whatever it stands in.
"""

import html
from datetime import UTC, datetime

from studio import __version__
from studio.domain.datasets import counted
from studio.domain.probe import MARGIN, USUAL_PICTURES
from studio.evaluation_plots import scrolled
from studio.evaluation_scores import p_words
from studio.html_page import html_page
from studio.probe_scores import AttributeResult, ProbeResult, ValueShare, pictures_needed
from studio.statistics import Estimate

_BAR_PX, _BAR_HEIGHT_PX = 160, 20
_EFFECTS = ((0.5, "large"), (0.3, "medium"), (0.1, "small"))
_LIMITS = (
    "The judge is a classifier with biases of its own, and they are part of every share.",
    "What a person in a picture presents is not who somebody is, and nobody is in a picture that was drawn.",
    "The choice is forced: a picture that shows none of the values still counts for the one that fits best.",
    "One prompt is one prompt: another wording may give other shares.",
    "Which shares the pictures had that the model was trained on is not known here, nor which shares would be right.",
)


def limits_lines(margin: float = MARGIN) -> tuple[str, ...]:
    """What a probe cannot tell, which is said with every result and before there is one. `margin` is in points."""
    unsure = (
        f"A picture counts as unsure where its best two values are less than {margin:g} of CLIP score (cosine × 100) "
        "apart; its best value is counted all the same."
    )
    return (*_LIMITS, unsure)


def limits_html(margin: float = MARGIN) -> str:
    """`limits_lines` as a list."""
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in limits_lines(margin))
    return f'<div class="note quiet"><p>What this cannot tell:</p><ul>{lines}</ul></div>'


def probe_html(result: ProbeResult) -> str:
    """All of it: how far it is, a table for each attribute, the notes."""
    parts = [f'<p class="note">{html.escape(progress_words(result))}</p>']
    parts += map(_attribute_html, result.attributes)
    parts += [f'<p class="note quiet">{html.escape(words)}</p>' for words in _remarks(result)]
    return "".join(parts) + limits_html(result.probe.margin)


def progress_words(result: ProbeResult) -> str:
    """How many pictures there are, of what."""
    asked = result.probe.num_images
    words = f"“{result.probe.prompt}”: {result.drawn} of {counted(asked, 'picture')} drawn, {result.judged} judged"
    return f"{words}, {result.failed} failed." if result.failed else f"{words}."


def balance_words(result: AttributeResult) -> str:
    """Whether the shares are the expected ones, in a sentence."""
    if result.named:
        names = " and ".join(repr(name) for name in result.named)
        return f"The prompt asks for {names}: the shares tell how it is followed, not what the model takes for granted."
    kind = "the shares that were given" if result.attribute.shares else "equal shares"
    balance = result.balance
    if balance is None:
        needed = pictures_needed(result.attribute.expected)
        return f"Too few pictures to test against {kind}: it takes {needed}, and {result.n} are judged."
    size = next((word for least, word in _EFFECTS if balance.effect >= least), "tiny")
    test = "exact binomial test" if balance.test == "binomial" else "chi-square test"
    figures = f"{p_words(balance.adjusted)} by the {test}, Cohen's w {balance.effect:.2f}, which is {size}"
    if balance.adjusted < 0.05:
        return f"By this judge the shares differ from {kind} ({figures})."
    return f"No difference from {kind} is seen ({figures}); that does not show that there is none."


def unsure_words(result: AttributeResult) -> str:
    """How often the judge hardly knew."""
    return f"Unsure: {_percent(result.unsure)} of {result.n}."


def agreement_words(result: AttributeResult) -> str:
    """How far the judge is right by the exact checker; that nobody can tell, where the checker does not look."""
    if not any(value.seen for value in result.values):
        return "How often the judge is right about this cannot be checked here."
    if result.agreement is None:
        return "The exact checker recognises none of these values in any picture."
    words = f"Judge and exact checker agree in {_percent(result.agreement)} of {counted(result.agreement.n, 'picture')}"
    others = "1 other" if result.unclear == 1 else f"{result.unclear} others"
    words += f"; in {others} the checker recognises none of these values." if result.unclear else "."
    taken = [f"{seen} for {said} ({count})" for seen, said, count in result.confusions]
    return f"{words} The judge takes {', '.join(taken)}." if taken else words


def _attribute_html(result: AttributeResult) -> str:
    has_truth = any(value.seen for value in result.values)
    heads = ["Value", "Share by the judge", "", "Pictures", *(["By the exact checker"] if has_truth else [])]
    shown = "".join(f'<th scope="col">{head}</th>' if head else "<td></td>" for head in heads)
    rows = "".join(_row(value, has_truth) for value in result.values)
    words = (balance_words(result), unsure_words(result), agreement_words(result))
    name = result.attribute.name
    table = f'<table class="figures"><thead><tr>{shown}</tr></thead><tbody>{rows}</tbody></table>'
    return (
        f"<h3>{html.escape(name)}</h3>{scrolled(table, name)}"
        f'<p class="note">{html.escape(words[0])}</p><p class="note quiet">{html.escape(" ".join(words[1:]))}</p>'
    )


def _row(value: ValueShare, has_truth: bool) -> str:
    truth = f"<td>{_percent(value.seen) if value.seen else '–'}</td>" if has_truth else ""
    return (
        f'<tr><th scope="row" title="{html.escape(value.text)}">{html.escape(value.name)}</th>'
        f"<td>{_percent(value.share)}</td><td>{_bar(value)}</td><td>{value.count} of {value.share.n}</td>{truth}</tr>"
    )


def _bar(value: ValueShare) -> str:
    """The share as a bar with its interval, and a mark where it is expected."""
    wide = _BAR_PX * value.share.value
    low, high = (_BAR_PX * (end or 0.0) for end in (value.share.low, value.share.high))
    mark = _BAR_PX * value.expected
    size = f'width="{_BAR_PX}" height="{_BAR_HEIGHT_PX}" viewBox="0 0 {_BAR_PX} {_BAR_HEIGHT_PX}"'
    words = html.escape(f"{value.name}: {_percent(value.share)}, expected {value.expected:.0%}")
    return (
        f'<svg class="interval" role="img" aria-label="{words}" {size}>'
        f'<rect x="0" y="9" width="{_BAR_PX}" height="2" fill="var(--line)"/>'
        f'<rect x="0" y="4" width="{wide:.1f}" height="12" fill="var(--accent-text)" opacity=".55"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="10" y2="10" stroke="var(--accent-text)" stroke-width="3"/>'
        f'<line x1="{mark:.1f}" x2="{mark:.1f}" y1="1" y2="19" stroke="var(--quiet)" stroke-dasharray="2 2"/></svg>'
    )


def _remarks(result: ProbeResult) -> list[str]:
    if not result.attributes:
        return []
    said = [
        "In square brackets Wilson's 95 % interval; the dashed mark is the expected share. Zero-shot, by "
        f"{result.judge}; seeds from {result.probe.recipe.seed} up; p after Holm."
    ]
    cut = counted(result.truncated, "picture")
    said += [f"Of {cut} the judge read a text only in part: it is too long for it."] if result.truncated else []
    said += [f"{USUAL_PICTURES} pictures and more give narrower intervals."] if result.judged < USUAL_PICTURES else []
    return [*said, result.remark] if result.remark else said


def _percent(estimate: Estimate) -> str:
    return estimate.words("{:.0%}".format)


def probe_report(result: ProbeResult) -> str:
    """One HTML file that needs neither the studio nor the network."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    recipe = html.escape(result.probe.model_dump_json(indent=1))
    body = (
        f"<h1>What one prompt shows over many seeds</h1>{probe_html(result)}<h2>What was asked</h2><pre>{recipe}</pre>"
        f'<p class="quiet">Flash Studio {__version__}, {when}</p>'
    )
    return html_page("Balance", body)
