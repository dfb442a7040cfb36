"""An evaluation looked at more closely: every pair of systems, and every kind of prompt by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from studio.evaluation_scores import Analysis, MeasureId, SystemScore, Values, differences, estimate_of, margin_of
from studio.paired import Paired, benjamini_hochberg, compare_all

MOST_PAIRS = 66
"""Those of twelve systems."""
_FEWEST = 2
"""Prompts, or kinds of them, that something can be said of."""


@dataclass(frozen=True, kw_only=True)
class PairScore:
    """`first` against `second`, by their names."""

    first: str
    second: str
    paired: Paired


@dataclass(frozen=True, kw_only=True)
class GroupScore:
    """The prompts of one kind, `n` of them: each system against the baseline, by its name."""

    group: str
    n: int
    against: Mapping[str, Paired]


def every_pair(analysis: Analysis, measure: MeasureId) -> tuple[PairScore, ...]:
    """Each system against each that stands after it, corrected for all of these (Holm); () of fewer than three systems,
    whose comparison with the baseline says it all, and of a sweep, which has too many."""
    scored = [each for each in analysis.systems if measure in each.by_prompt]
    if len(scored) < 3 or analysis.evaluation.axes:
        return ()
    pairs = [*combinations(scored, 2)][:MOST_PAIRS]
    told = [differences(one.by_prompt[measure], other.by_prompt[measure]) for one, other in pairs]
    if any(len(each) < _FEWEST for each in told):
        return ()
    compared = compare_all(told, margin_of(analysis.evaluation, measure), estimate_of(measure))
    return tuple(
        PairScore(first=one.system.name, second=other.system.name, paired=paired)
        for (one, other), paired in zip(pairs, compared, strict=True)
    )


def by_group(analysis: Analysis, measure: MeasureId) -> tuple[GroupScore, ...]:
    """Each kind of prompt by itself, the most frequent first. So many questions are asked at once that some answers
    would be luck: p-values are corrected by the rate of false discoveries over all of them, and what is found is worth
    another evaluation rather than a conclusion. () where prompts are of one kind."""
    base = analysis.baseline
    if base is None or measure not in base.by_prompt or analysis.evaluation.axes:
        return ()
    places: dict[str, list[int]] = {}
    for place in analysis.places:
        places.setdefault(analysis.evaluation.prompts[place].group or "other", []).append(place)
    if len(places) < _FEWEST:
        return ()
    others = [each for each in analysis.systems if measure in each.against]
    asked = {
        (group, each.system.name): told
        for group, held in places.items()
        for each in others
        if len(told := _within(held, each, base, measure)) >= _FEWEST
    }
    margin = margin_of(analysis.evaluation, measure)
    compared = compare_all(list(asked.values()), margin, estimate_of(measure), benjamini_hochberg)
    against = dict(zip(asked, compared, strict=True))
    return tuple(
        GroupScore(
            group=group,
            n=len(places[group]),
            against={name: paired for (of_group, name), paired in against.items() if of_group == group},
        )
        for group in sorted(places, key=lambda name: (-len(places[name]), name))
    )


def _within(places: list[int], score: SystemScore, base: SystemScore, measure: MeasureId) -> list[float]:
    def kept(values: Values) -> Values:
        return {place: values[place] for place in places if place in values}

    return differences(kept(score.by_prompt[measure]), kept(base.by_prompt[measure]))
