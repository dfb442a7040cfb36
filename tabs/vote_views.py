"""What the page shows of a blind vote, before it and after. Pure functions: JSON that the widget writes as text."""

import io
import secrets
from collections.abc import Sequence
from typing import Any

from PIL import Image

from studio.bradley_terry import FEWEST_VOTES, Strength
from studio.evaluation import Standing
from studio.evaluation_scores import WORDS
from studio.run_grid_scores import interval
from studio.vote_summary import PairSummary, VoteSummary
from studio.voting import Ballot
from tabs import views
from tabs.widgets import as_json

Told = dict[str, Any]
"""Results: `lines` of text, and `tables` with a `title`, a `head` and `rows` of texts."""

_PICTURE_PX = 1024
EMPTY = as_json(empty="")
"""The value of the widget before it is opened."""


def stage(
    standing: Standing, ballot: Ballot, pictures: Sequence[str], problem: str = "", told: Told | None = None
) -> str:
    """The value of the widget. Of the pair it says the prompt, the two `pictures` and the token, and no more: nothing
    by which the systems could be told apart. Each value has another `turn`, so that the page hears of it even if
    nothing else differs."""
    pair = ballot.pair
    return as_json(
        turn=secrets.token_hex(4),
        prompt=standing.evaluation.prompts[pair.place].text if pair else "",
        pictures=list(pictures),
        token=pair.token if pair else "",
        count=_count(ballot),
        can_undo=ballot.cast > 0,
        empty="" if pair else _why_empty(standing, ballot),
        problem=problem,
        results=told,
    )


def picture(image: Image.Image) -> str:
    """A picture inside a URL: at most 1024 px on the longer side, without metadata. The page's own addresses of
    pictures would tell the systems apart, for they begin with the time of drawing, and one system draws before the
    other; and 320 px, as thumbnails have, are too few to judge by."""
    shown = image.convert("RGB")
    shown.thumbnail((_PICTURE_PX, _PICTURE_PX))
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=95, subsampling=0)
    return views.data_uri(buffer.getvalue())


def _count(ballot: Ballot) -> str:
    if not ballot.left:
        return ""
    return "One pair left" if ballot.left == 1 else f"{ballot.left} pairs left"


def _why_empty(standing: Standing, ballot: Ballot) -> str:
    if not standing.evaluation.others:
        return "A vote needs two ways of drawing. This evaluation has one."
    if standing.is_running:
        return "Nothing to vote on until more is drawn. Press “Vote blind” again in a while."
    if ballot.cast:
        return "That was all. Thank you."
    return "There are no two pictures of the same prompt to vote on."


def results(summary: VoteSummary) -> Told:
    """What the votes say, for a person who has asked for it."""
    if not summary.n:
        return {"lines": ["There are no votes yet."], "tables": []}
    tables = [_ranking(summary), _metric(summary), _disagreements(summary)]
    return {"lines": _lines(summary), "tables": [table for table in tables if table["rows"]]}


def _lines(summary: VoteSummary) -> list[str]:
    people = "one person" if summary.raters == 1 else f"{summary.raters} people"
    votes = "One vote" if summary.n == 1 else f"{summary.n} votes"
    lines = [f"{votes} by {people}{f', {summary.skipped} skipped' if summary.skipped else ''}."]
    if not summary.is_enough:
        lines.append(f"Too few votes to rank: {FEWEST_VOTES} at least. What follows may be luck.")
    if len(summary.against) == 1 and not summary.strengths:
        ((name, rate),) = summary.against.items()
        lines.append(f"{name} is preferred to {summary.baseline} in {interval(rate)} of them; a tie counts half.")
        if summary.is_enough and rate.low is not None and rate.high is not None:
            lines.append(_verdict(name, summary.baseline, rate.low, rate.high))
    if summary.agreement is not None:
        cases = "pair" if summary.agreement.n == 1 else "pairs"
        lines.append(
            f"Two people gave the same answer in {interval(summary.agreement)} of cases, "
            f"by the {summary.agreement.n} {cases} that more than one saw."
        )
    return lines


def _verdict(name: str, baseline: str, low: float, high: float) -> str:
    if low <= 0.5 <= high:
        return "Which of the two people prefer cannot be told yet."
    return f"People prefer {name if low > 0.5 else baseline}."


def _ranking(summary: VoteSummary) -> Told:
    """Of more than two systems: the strongest first, once there are enough votes to say so."""
    head = ["System", *(["Strength"] if summary.is_enough else []), f"Preferred to {summary.baseline}", "Votes"]
    ranked = summary.strengths if summary.is_enough else sorted(summary.strengths, key=lambda each: each.system)
    rows = [
        [
            each.system,
            *([_elo(each)] if summary.is_enough else []),
            interval(summary.against[each.system]) if each.system in summary.against else "–",
            str(each.elo.n),
        ]
        for each in ranked
    ]
    note = "In square brackets the 95 % interval. 1000 is the mean of all; 100 more wins 64 votes of 100."
    return {"title": "What people prefer", "head": head, "rows": rows, "note": note if summary.is_enough else ""}


def _elo(strength: Strength) -> str:
    return strength.elo.words("{:.0f}".format)


def _metric(summary: VoteSummary) -> Told:
    """Whether the metric says what people say."""
    name = WORDS[summary.measure].title.lower() if summary.measure else ""
    rows = [
        [f"{pair.first} – {pair.second}", str(pair.same), str(pair.other), str(pair.equal), _way(pair)]
        for pair in summary.pairs
        if pair.lead is not None
    ]
    return {
        "title": f"Votes beside “{name}”",
        "head": ["Systems", "Says the same", "Says the opposite", "Sees no difference", "On the whole"],
        "rows": rows,
        "note": "Votes that prefer one of the two, by what the metric says of their prompt.",
    }


def _way(pair: PairSummary) -> str:
    return {True: "the same", False: "the opposite", None: "no preference"}[pair.is_same_way]


def _disagreements(summary: VoteSummary) -> Told:
    gain = WORDS[summary.measure].gain if summary.measure else str
    rows = [
        [each.text, each.people, f"{each.metric} ({gain(each.lead)})", str(each.n)] for each in summary.disagreements
    ]
    return {
        "title": "Where they differ most",
        "head": ["Prompt", "People prefer", "The metric prefers", "Votes"],
        "rows": rows,
        "note": "",
    }
