"""Which system is better, by how much, and whether that is more than luck: what an evaluation says so far.

The unit is the prompt: the pictures of one are averaged first. Only prompts count that every system has drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Literal

from studio.domain.cells import CellResult
from studio.domain.evaluation import Evaluation, System
from studio.domain.wording import listed
from studio.evaluation_files import Likeness
from studio.evaluation_likeness import SystemLikeness, likenesses
from studio.paired import LEAST_PROMPTS, Paired, VerdictWord, compare_all
from studio.statistics import Estimate, Spread, mean, mean_share, mean_share_difference, spread

MeasureId = Literal["right", "clip", "second"]
MEASURES: tuple[MeasureId, ...] = ("right", "clip", "second")
"""By what systems are told apart; an exact one goes first. "second" is the CLIP score of the second judge."""

_Estimating = Callable[[Sequence[float]], Estimate]
_MEAN: Mapping[MeasureId, _Estimating] = {"right": partial(mean_share, most=100.0), "clip": mean, "second": mean}
_DIFFERENCE: Mapping[MeasureId, _Estimating] = {**_MEAN, "right": partial(mean_share_difference, most=100.0)}

Values = Mapping[int, float]
"""A number for each prompt, by its place."""


@dataclass(frozen=True, kw_only=True)
class SystemScore:
    """Of one system, over `n` pictures of the prompts that count, of which `failed` could not be drawn. `right` is the
    percentage that the checker passes (one that failed is wrong), `clip` the CLIP score (cosine × 100) and `second`
    that of the second judge, all with their value `by_prompt`; `skills` the percentage of what is asked for, by skill.
    `against` the baseline, by measure."""

    system: System
    n: int
    failed: int
    truncated: int
    means: Mapping[MeasureId, Estimate]
    by_prompt: Mapping[MeasureId, Values]
    skills: Mapping[str, Estimate]
    seconds: Spread | None
    against: Mapping[MeasureId, Paired]


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """What `evaluation` says after `places` of its prompts were drawn by all systems; `judge` gave the CLIP scores, and
    `second_judge` was asked, too. `likenesses` tells how alike pictures are, of every system, once that is known."""

    evaluation: Evaluation
    places: tuple[int, ...]
    systems: tuple[SystemScore, ...]
    judge: str
    second_judge: str = ""
    likenesses: tuple[SystemLikeness, ...] = ()

    @property
    def baseline(self) -> SystemScore | None:
        return next((each for each in self.systems if each.system.name == self.evaluation.baseline), None)

    @property
    def measure(self) -> MeasureId | None:
        """What a verdict goes by: the checker where it can judge most prompts, else the CLIP score."""
        known = {
            each: max((len(told.by_prompt.get(each, ())) for told in self.systems), default=0) for each in MEASURES
        }
        most = max(known.values())
        return next((each for each in MEASURES if known[each] and 2 * known[each] > most), None)


def analyse(evaluation: Evaluation, results: Mapping[int, CellResult], likeness: Likeness | None = None) -> Analysis:
    """`results` are by the index of their cell."""
    rows: dict[str, dict[int, list[CellResult]]] = {system.name: {} for system in evaluation.systems}
    for cell in evaluation.cells:
        if cell.index in results:
            rows[cell.system.name].setdefault(cell.place, []).append(results[cell.index])
    whole = [
        {place for place, told in of_system.items() if len(told) == evaluation.num_images}
        for of_system in rows.values()
    ]
    places = tuple(sorted(set[int].intersection(*whole)))
    judge = next((result.judge for result in results.values() if result.judge), "")
    second = next((result.second.judge for result in results.values() if result.second), "")
    if not places:
        return Analysis(evaluation=evaluation, places=(), systems=(), judge=judge, second_judge=second)
    kept = {name: {place: told[place] for place in places} for name, told in rows.items()}
    values = {name: _values(told) for name, told in kept.items()}
    against = _against(evaluation, values)
    systems = tuple(
        _score(system, kept[system.name], values[system.name], against.get(system.name, {}))
        for system in evaluation.systems
    )
    told = likenesses(evaluation, places, results, likeness) if likeness else ()
    return Analysis(
        evaluation=evaluation, places=places, systems=systems, judge=judge, second_judge=second, likenesses=told
    )


def _values(told: Mapping[int, Sequence[CellResult]]) -> Mapping[MeasureId, Values]:
    right: dict[int, float] = {}
    clip: dict[int, float] = {}
    second: dict[int, float] = {}
    for place, results in told.items():
        verdicts = [result.right for result in results if result.right is not None]
        if len(verdicts) == len(results):
            right[place] = 100 * fmean(verdicts)
        cosines = [result.cosine for result in results if result.cosine is not None]
        if cosines:
            clip[place] = 100 * fmean(cosines)
        others = [result.second.cosine for result in results if result.second is not None]
        if others and len(others) == len(cosines):
            second[place] = 100 * fmean(others)
    measured: tuple[tuple[MeasureId, Values], ...] = (("right", right), ("clip", clip), ("second", second))
    return {measure: values for measure, values in measured if values}


def _against(
    evaluation: Evaluation, values: Mapping[str, Mapping[MeasureId, Values]]
) -> Mapping[str, Mapping[MeasureId, Paired]]:
    """Every system but the baseline against that, by name and measure; those that are shown together are corrected
    together."""
    found: dict[str, dict[MeasureId, Paired]] = {}
    for measure in MEASURES:
        base = values[evaluation.baseline].get(measure, {})
        pairs = {system.name: differences(values[system.name].get(measure, {}), base) for system in evaluation.others}
        able = {name: told for name, told in pairs.items() if len(told) > 1}
        compared = (
            compare_all(list(able.values()), margin_of(evaluation, measure), _DIFFERENCE[measure]) if able else []
        )
        for name, paired in zip(able, compared, strict=True):
            found.setdefault(name, {})[measure] = paired
    return found


def margin_of(evaluation: Evaluation, measure: MeasureId) -> float:
    """What counts as no loss by that measure."""
    return evaluation.right_margin if measure == "right" else evaluation.clip_margin


def estimate_of(measure: MeasureId) -> Callable[[Sequence[float]], Estimate]:
    """How the mean of differences of a measure is estimated."""
    return _DIFFERENCE[measure]


def differences(values: Values, others: Values) -> list[float]:
    """`values` less `others`, of the prompts that both have."""
    return [values[place] - others[place] for place in sorted(values) if place in others]


def _score(
    system: System,
    told: Mapping[int, Sequence[CellResult]],
    values: Mapping[MeasureId, Values],
    against: Mapping[MeasureId, Paired],
) -> SystemScore:
    results = [result for of_prompt in told.values() for result in of_prompt]
    times = [result.seconds for result in results if result.seconds]
    return SystemScore(
        system=system,
        n=len(results),
        failed=sum(bool(result.problem) for result in results),
        truncated=sum(result.is_truncated for result in results),
        means={measure: _MEAN[measure](list(each.values())) for measure, each in values.items()},
        by_prompt=values,
        skills=_skills(told),
        seconds=spread(times) if times else None,
        against=against,
    )


def _skills(told: Mapping[int, Sequence[CellResult]]) -> Mapping[str, Estimate]:
    """How often each skill is right, in percent, over the prompts that ask for it; those that failed count as wrong
    where a picture of the same prompt tells what is asked."""
    found: dict[str, list[float]] = {}
    for results in told.values():
        asked = next((result.skills for result in results if result.skills), None)
        for skill in asked or ():
            found.setdefault(skill, []).append(
                100 * fmean(bool(result.skills and result.skills.get(skill)) for result in results)
            )
    return {skill: _MEAN["right"](values) for skill, values in found.items()}


@dataclass(frozen=True, kw_only=True)
class MeasureWords:
    """How a measure is called and written."""

    title: str
    unit: str
    form: Callable[[float], str]
    gain: Callable[[float], str]


WORDS: Mapping[MeasureId, MeasureWords] = {
    "right": MeasureWords(title="Drawn right", unit="points", form="{:.1f} %".format, gain="{:+.1f}".format),
    "clip": MeasureWords(title="CLIP score", unit="points", form="{:.2f}".format, gain="{:+.2f}".format),
    "second": MeasureWords(title="Second judge", unit="points", form="{:.2f}".format, gain="{:+.2f}".format),
}


def headline(analysis: Analysis) -> str:
    """What is better and how sure that is, in one sentence; "" while nothing is there."""
    measure, base = analysis.measure, analysis.baseline
    if measure is None or base is None:
        return ""
    count = len(analysis.places)
    if not analysis.evaluation.others:
        return f"{base.system.name}: {WORDS[measure].title.lower()} {_words(base.means[measure], measure)}."
    if count < LEAST_PROMPTS:
        return f"{_prompts(count)} are too few to say which is better: {LEAST_PROMPTS} at least, 34 or more to be sure."
    told = [each for each in analysis.systems if measure in each.against]
    claims = [
        _claim(word, [each for each in told if each.against[measure].verdict == word], base, measure) for word in _SAID
    ]
    return f"{'; '.join(filter(None, claims))} – by {_by(measure)} on {_prompts(count)}."


_SAID: Mapping[VerdictWord, tuple[str, str]] = {
    "better": ("is better than", "are better than"),
    "worse": ("is worse than", "are worse than"),
    "not worse": ("is not worse than", "are not worse than"),
    "undecided": ("cannot be told from", "cannot be told from"),
}
"""Each verdict of one system and of several."""


def _claim(word: VerdictWord, scores: Sequence[SystemScore], base: SystemScore, measure: MeasureId) -> str:
    """What is said of the systems that a verdict holds for, with by how much where that is told."""
    if not scores:
        return ""
    named = [
        f"{each.system.name}{'' if word == 'undecided' else _amount(each.against[measure], measure)}" for each in scores
    ]
    tail = {"not worse": f" by {scores[0].against[measure].margin:g} points or more", "undecided": " yet"}.get(word, "")
    return f"{listed(named)} {_SAID[word][len(scores) > 1]} {base.system.name}{tail}"


def _amount(paired: Paired, measure: MeasureId) -> str:
    return f" ({paired.difference.words(WORDS[measure].gain)} points, {p_words(paired.adjusted)})"


def p_words(value: float) -> str:
    """A p-value as it is written."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def _words(estimate: Estimate, measure: MeasureId) -> str:
    return estimate.words(WORDS[measure].form)


def _by(measure: MeasureId) -> str:
    return "what the checker finds drawn right" if measure == "right" else "CLIP score"


def _prompts(count: int) -> str:
    return "one prompt" if count == 1 else f"{count} prompts"


_TWO: tuple[MeasureId, ...] = ("right", "clip")


def disagreement(analysis: Analysis) -> str:
    """Where the checker and the judge say opposite things of a system; "" where they do not."""
    opposed = [
        each.system.name
        for each in analysis.systems
        if {each.against[measure].verdict for measure in _TWO if measure in each.against} == {"better", "worse"}
    ]
    return f"The checker and the CLIP score disagree on {', '.join(opposed)}." if opposed else ""


def agreement(analysis: Analysis) -> str:
    """Whether the second judge finds the same better as the first, as far as the sign of the difference goes; "" where
    there is none, or nothing to compare."""
    both = [each for each in analysis.systems if "clip" in each.against and "second" in each.against]
    signs = {
        each.system.name: [each.against[measure].difference.value for measure in ("clip", "second")] for each in both
    }
    apart = [name for name, (one, other) in signs.items() if one * other < 0]
    if not both:
        return ""
    if not apart:
        return "The second judge agrees on which is ahead" + (" of all of them." if len(both) > 1 else ".")
    return f"The second judge finds the opposite ahead for {' and '.join(apart)}."
