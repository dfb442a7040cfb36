"""Plots of an evaluation, as SVG and HTML that need nothing else; see `studio.evaluation_views` for their colours."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from studio.evaluation_files import Anchors
from studio.evaluation_scores import WORDS, Analysis, differences
from studio.paired import Paired
from studio.statistics import Estimate

WORD_CLASS = {"better": "good", "worse": "bad", "not worse": "good"}
"""How a verdict looks."""
_PLOT_PX, _PLOT_HEIGHT_PX = 168, 24


def scrolled(table: str, label: str) -> str:
    """A table (HTML) that scrolls by itself where it is too wide, by the keyboard, too."""
    name = html.escape(label)
    return f'<div class="figures-scroll" tabindex="0" role="region" aria-label="{name}">{table}</div>'


def interval_svg(paired: Paired, scale: float) -> str:
    """The difference with its interval on a line whose middle is no difference; the margin is shaded."""
    middle, half = _PLOT_PX / 2, _PLOT_PX / 2 - 4

    def across(value: float) -> float:
        return round(middle + half * max(-1.0, min(1.0, value / scale)), 1)

    low, high = paired.difference.low, paired.difference.high
    band = ""
    if paired.margin:
        left, right = across(-paired.margin), across(paired.margin)
        band = f'<rect x="{left}" y="2" width="{right - left:.1f}" height="20" fill="var(--line)" opacity=".6"/>'
    colour = {"good": "var(--good)", "bad": "var(--bad)"}.get(WORD_CLASS.get(paired.verdict, ""), "var(--quiet)")
    bar = ""
    if low is not None and high is not None:
        bar = f'<line x1="{across(low)}" x2="{across(high)}" y1="12" y2="12" stroke="{colour}" stroke-width="3"/>'
    dot = f'<circle cx="{across(paired.difference.value)}" cy="12" r="4" fill="{colour}"/>'
    zero = f'<line x1="{middle}" x2="{middle}" y1="2" y2="22" stroke="var(--quiet)"/>'
    size = f'width="{_PLOT_PX}" height="{_PLOT_HEIGHT_PX}" viewBox="0 0 {_PLOT_PX} {_PLOT_HEIGHT_PX}"'
    words = 'class="interval" role="img" aria-label="Interval around no difference"'
    return f"<svg {words} {size}>{band}{zero}{bar}{dot}</svg>"


def strips_html(analysis: Analysis) -> str:
    """For each system a strip with a mark for every prompt, from where it loses most to where it wins most."""
    base, measure = analysis.baseline, analysis.measure
    if base is None or measure is None or not analysis.evaluation.others:
        return ""
    rows: list[str] = []
    for score in analysis.systems:
        if measure not in score.against:
            continue
        told = sorted(differences(score.by_prompt[measure], base.by_prompt[measure]))
        wins, losses = sum(value > 0 for value in told), sum(value < 0 for value in told)
        words = f"{score.system.name}: {wins} won, {len(told) - wins - losses} tied, {losses} lost"
        rows.append(f'<p class="note">{html.escape(words)}</p>{_strip_svg(told)}')
    return f"<h3>Prompt by prompt, by {html.escape(WORDS[measure].title.lower())}</h3>{''.join(rows)}" if rows else ""


def _strip_svg(told: Sequence[float]) -> str:
    most = max(*map(abs, told), 1e-9) if len(told) > 1 else 1.0
    marks: list[str] = []
    for place, value in enumerate(told):
        height = max(1.0, 15 * abs(value) / most)
        top = 16 - height if value >= 0 else 16
        colour = "var(--good)" if value > 0 else "var(--bad)" if value < 0 else "var(--quiet)"
        marks.append(f'<rect x="{place}" y="{top:.1f}" width=".8" height="{height:.1f}" fill="{colour}"/>')
    return (
        f'<svg class="strip" viewBox="0 0 {len(told)} 32" preserveAspectRatio="none" role="img" '
        f'aria-label="Differences by prompt, sorted">{"".join(marks)}</svg>'
    )


@dataclass(frozen=True)
class _Point:
    name: str
    seconds: float
    quality: Estimate


def frontier_html(analysis: Analysis) -> str:
    """Seconds a picture across, quality up, with intervals; "" where fewer than two systems have both."""
    measure = analysis.measure
    if measure is None:
        return ""
    points = [
        _Point(each.system.name, each.seconds.median, each.means[measure])
        for each in analysis.systems
        if each.seconds and measure in each.means
    ]
    if len(points) < 2:
        return ""
    form = WORDS[measure].form
    lows = [point.quality.value if point.quality.low is None else point.quality.low for point in points]
    highs = [point.quality.value if point.quality.high is None else point.quality.high for point in points]
    bottom, top, most = min(lows), max(highs), max(point.seconds for point in points) * 1.05
    room = max(top - bottom, 1e-9)

    def up(value: float) -> float:
        return round(170 - 150 * (value - bottom) / room, 1)

    marks: list[str] = []
    for number, (point, low, high) in enumerate(zip(points, lows, highs, strict=True), start=1):
        x, y = round(70 + 500 * point.seconds / most, 1), up(point.quality.value)
        marks.append(
            f'<line x1="{x}" x2="{x}" y1="{up(low)}" y2="{up(high)}" stroke="var(--accent-text)" stroke-width="2"/>'
            f'<circle cx="{x}" cy="{y}" r="5" fill="var(--accent-text)"/>'
            f'<text x="{x + 9}" y="{y + 4}">{number}</text>'
        )
    axes = (
        '<path d="M70 14V170H580" fill="none" stroke="var(--line)"/>'
        f'<text x="64" y="{up(top) + 4}" text-anchor="end">{html.escape(form(top))}</text>'
        f'<text x="64" y="{up(bottom) + 4}" text-anchor="end">{html.escape(form(bottom))}</text>'
        f'<text x="70" y="188">0 s</text><text x="580" y="188" text-anchor="end">{most:.2f} s a picture</text>'
    )
    names = "".join(
        f"<li>{html.escape(point.name)}: {point.seconds:.2f} s, {form(point.quality.value)}</li>" for point in points
    )
    return (
        f"<h3>Speed and {html.escape(WORDS[measure].title.lower())}</h3>"
        '<svg class="plot" viewBox="0 0 600 196" role="img" aria-label="Seconds against quality">'
        f"{axes}{''.join(marks)}</svg>"
        f'<ol class="note quiet">{names}</ol>'
    )


def anchors_html(analysis: Analysis, anchors: Anchors) -> str:
    """The CLIP scores between what pictures of other prompts get and what exact drawings get."""
    scored = [each for each in analysis.systems if "clip" in each.means]
    if not scored or not (anchors.floor or anchors.ceiling):
        return ""
    lines = [("Pictures of other prompts (floor)", anchors.floor), ("Exact drawings (ceiling)", anchors.ceiling)]
    rows = [(title, 100 * fmean(values.values()), "quiet") for title, values in lines if values]
    rows[1:1] = [(each.system.name, each.means["clip"].value, "accent-text") for each in scored]
    least, most = min(0.0, *(value for _, value, _ in rows)), max(value for _, value, _ in rows)
    shown = "".join(
        f'<div class="bar"><span>{html.escape(title)}</span><i><b style="width:{_percent(value, least, most)};'
        f'background:var(--{colour})"></b></i><span>{value:.1f}</span></div>'
        for title, value, colour in rows
    )
    return f'<h3>What a CLIP score can be here</h3><div class="bars">{shown}</div>'


def _percent(value: float, least: float, most: float) -> str:
    return f"{100 * (value - least) / max(most - least, 1e-9):.1f}%"
