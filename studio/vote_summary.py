"""What the blind votes on an evaluation come to, and whether they say what its metric says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from studio.bradley_terry import Strength, Vote, agreement, is_enough, strengths, win_rate
from studio.domain.evaluation import Evaluation
from studio.domain.votes import VoteLine
from studio.evaluation_scores import Analysis, MeasureId, Values
from studio.statistics import Estimate

_MOST_DISAGREEMENTS = 12
_SAME = 1e-9
"""Two values of a metric that differ by less are the same."""


@dataclass(frozen=True, kw_only=True)
class PairSummary:
    """Two systems: `rate` is how often people prefer `first`. Of the votes that prefer one of the two, the metric's
    value of that prompt is better for the `same` system, for the `other`, or `equal`; votes on prompts that have no
    value are in none of them. `lead` is the metric's mean for `first` less that for `second`, over the prompts that
    were voted on; None where none of them has a value."""

    first: str
    second: str
    rate: Estimate
    same: int
    other: int
    equal: int
    lead: float | None

    @property
    def is_same_way(self) -> bool | None:
        """Whether votes and metric are for the same system on the whole; None where either is for neither."""
        votes = self.rate.value - 0.5
        if not votes or self.lead is None or abs(self.lead) < _SAME:
            return None
        return (votes > 0) == (self.lead > 0)


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A prompt, by its place, where people prefer the pictures of the system `people`, in `n` votes, and the metric
    those of the system `metric`, by `lead` in the unit of the metric."""

    place: int
    text: str
    people: str
    metric: str
    n: int
    lead: float


@dataclass(frozen=True, kw_only=True)
class VoteSummary:
    """What `n` votes by so many raters say; what they `skipped` is no vote. `against` is how often each system is
    preferred to the `baseline`, from 0 to 1, where the two were voted on; of more than two systems `strengths` ranks
    all. Neither says much before `is_enough`. `agreement` is that between raters, None where no two saw the same
    pictures. `measure` is the metric that votes are compared with, None where nothing is judged; `disagreements` are
    at most 12 prompts, those first where both are surest of the opposite."""

    n: int
    skipped: int
    raters: int
    is_enough: bool
    baseline: str
    against: Mapping[str, Estimate]
    strengths: tuple[Strength, ...]
    agreement: Estimate | None
    measure: MeasureId | None
    pairs: tuple[PairSummary, ...]
    disagreements: tuple[Disagreement, ...]


def summarise(lines: Sequence[VoteLine], analysis: Analysis) -> VoteSummary:
    """What `lines` say, which are on the evaluation of `analysis`."""
    base, names = analysis.evaluation.baseline, [system.name for system in analysis.evaluation.systems]
    votes, between, values = _votes(lines), _by_systems(lines), _values(analysis)
    others = [name for name in names if frozenset((name, base)) in between]
    voted = [each for each in combinations(names, 2) if frozenset(each) in between]
    return VoteSummary(
        n=len(votes),
        skipped=len(lines) - len(votes),
        raters=len({vote.rater for vote in votes}),
        is_enough=is_enough(votes),
        baseline=base,
        against={name: win_rate(votes, name, base) for name in others},
        strengths=tuple(strengths(votes, names)) if len(names) > 2 and votes else (),
        agreement=agreement(_votes(lines, by_picture=True)),
        measure=analysis.measure,
        pairs=tuple(_pair(between[frozenset(each)], *each, win_rate(votes, *each), values) for each in voted),
        disagreements=_disagreements(between, analysis.evaluation, values),
    )


def _votes(lines: Sequence[VoteLine], *, by_picture: bool = False) -> list[Vote]:
    """What was not skipped. The unit is the prompt, whichever of its pictures were shown; what two raters saw is the
    same only `by_picture`."""
    votes: list[Vote] = []
    for line in lines:
        if line.outcome != "skip":
            prompt = f"{line.place}/{line.image}" if by_picture else f"{line.place}"
            votes.append(
                Vote(first=line.first, second=line.second, outcome=line.outcome, prompt=prompt, rater=line.rater)
            )
    return votes


def _by_systems(lines: Sequence[VoteLine]) -> dict[frozenset[str], list[VoteLine]]:
    found: dict[frozenset[str], list[VoteLine]] = {}
    for line in lines:
        if line.is_vote:
            found.setdefault(line.systems, []).append(line)
    return found


def _values(analysis: Analysis) -> dict[str, Values]:
    """The metric of each prompt, by the name of the system; nothing where nothing is judged."""
    if analysis.measure is None:
        return {}
    return {each.system.name: each.by_prompt.get(analysis.measure, {}) for each in analysis.systems}


def _pair(
    lines: Sequence[VoteLine], first: str, second: str, rate: Estimate, values: Mapping[str, Values]
) -> PairSummary:
    leads = _leads(lines, first, second, values)
    decided = [(_lean(line, first), leads[line.place]) for line in lines if line.place in leads]
    products = [lean * lead for lean, lead in decided if lean]
    return PairSummary(
        first=first,
        second=second,
        rate=rate,
        same=sum(product > _SAME for product in products),
        other=sum(product < -_SAME for product in products),
        equal=sum(abs(product) <= _SAME for product in products),
        lead=fmean(leads.values()) if leads else None,
    )


def _leads(lines: Sequence[VoteLine], first: str, second: str, values: Mapping[str, Values]) -> dict[int, float]:
    """The metric's value for `first` less that for `second`, by the place of each prompt of `lines` that has both."""
    ours, theirs = values.get(first, {}), values.get(second, {})
    places = sorted({line.place for line in lines})
    return {place: ours[place] - theirs[place] for place in places if place in ours and place in theirs}


def _lean(line: VoteLine, system: str) -> int:
    """1 where `line` prefers `system`, -1 where it prefers the other one, 0 where it prefers neither."""
    if line.outcome not in ("first", "second"):
        return 0
    return 1 if (line.first if line.outcome == "first" else line.second) == system else -1


def _disagreements(
    between: Mapping[frozenset[str], Sequence[VoteLine]], evaluation: Evaluation, values: Mapping[str, Values]
) -> tuple[Disagreement, ...]:
    found: list[tuple[float, Disagreement]] = []
    for systems, lines in between.items():
        one, other = sorted(systems)
        for place, lead in _leads(lines, one, other, values).items():
            here = [_lean(line, one) for line in lines if line.place == place]
            strength = fmean(here) * lead
            if strength < -_SAME:
                people, metric = (one, other) if lead < 0 else (other, one)
                text = evaluation.prompts[place].text
                told = Disagreement(place=place, text=text, people=people, metric=metric, n=len(here), lead=abs(lead))
                found.append((strength, told))
    found.sort(key=lambda each: (each[0], each[1].place, each[1].people))
    return tuple(told for _, told in found[:_MOST_DISAGREEMENTS])
