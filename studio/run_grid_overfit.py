"""Which checkpoints of a grid may have learnt too much: words for who chooses one."""

from collections.abc import Sequence
from dataclasses import dataclass

from studio.diversity import is_surely_near
from studio.run_grid_scores import ColumnScore, interval, measure_of
from studio.statistics import Estimate, mean_difference

MOST_LOST = 0.2
"""Share of the diversity that a checkpoint may lose."""
_FEWEST_PROMPTS = 3
_AS_GOOD = {"right": 0.05, "clip": 0.5}
"""By how much another column may be worse and still count as as good: a share, and points of a CLIP score."""


@dataclass(frozen=True, kw_only=True)
class Fall:
    """How much less varied a column's pictures are than those of `other`: `difference` of their diversities, paired by
    prompt, and the `share` of the other's that is lost."""

    other: ColumnScore
    difference: Estimate
    share: float


def overfit(scores: Sequence[ColumnScore]) -> tuple[str, ...]:
    """A sentence for every column with an adapter that may have learnt its pictures by heart, draws less varied
    pictures than an earlier one that is as good, or follows ordinary prompts less than the model without it; in the
    order of `scores`.

    Near training pictures means that the interval of the share lies above a tenth, and above what is near without an
    adapter. Less varied means that the mean difference of diversities, paired by prompt (three or more), has an
    interval below 0 and is more than a fifth. The other column is the first of these that is as good: that without an
    adapter, then earlier checkpoints at the same scale. One that draws what is asked is less varied than one that does
    not, which is no fault; so only such count as are not much worse by what is drawn right, else by the CLIP score."""
    control = next((score for score in scores if score.column.use is None), None)
    told: list[str] = []
    for score in scores:
        if score.column.use is None:
            continue
        told += [_near_words(score, control)] if _is_near(score, control) else []
        fall = fallen(score, scores)
        told += [_fall_words(score, fall)] if fall else []
        told += [_ordinary_words(score, control)] if _forgets(score) else []
    return tuple(told)


def fallen(score: ColumnScore, scores: Sequence[ColumnScore]) -> Fall | None:
    """How much less varied `score` is than the first that is as good, where that is clear; see `overfit`."""
    other = next((each for each in scores if _is_before(each, score) and _is_as_good(each, score)), None)
    if other is None:
        return None
    prompts = [prompt for prompt in score.diversities if prompt in other.diversities]
    if len(prompts) < _FEWEST_PROMPTS:
        return None
    ours, theirs = ([each.diversities[prompt] for prompt in prompts] for each in (score, other))
    difference, before = mean_difference(ours, theirs), sum(theirs) / len(theirs)
    if difference.high is None or difference.high >= 0 or -difference.value <= MOST_LOST * before:
        return None
    return Fall(other=other, difference=difference, share=-difference.value / before)


def _is_before(other: ColumnScore, score: ColumnScore) -> bool:
    ours, theirs = score.column, other.column
    if theirs.use is None:
        return True
    return ours.use is not None and theirs.use.lora_scale == ours.use.lora_scale and theirs.step < ours.step


def _is_as_good(other: ColumnScore, score: ColumnScore) -> bool:
    if other.right and score.right:
        return other.right.value >= score.right.value - _AS_GOOD["right"]
    if score.right or not score.clip_gain:
        return False
    theirs = 0.0 if other.column.use is None else other.clip_gain.value if other.clip_gain else None
    return theirs is not None and theirs >= score.clip_gain.value - _AS_GOOD["clip"]


def _is_near(score: ColumnScore, control: ColumnScore | None) -> bool:
    return is_surely_near(score.near, control and control.near)


def _forgets(score: ColumnScore) -> bool:
    return score.ordinary_against is not None and score.ordinary_against.verdict == "worse"


def _ordinary_words(score: ColumnScore, control: ColumnScore | None) -> str:
    assert score.ordinary and score.ordinary_against
    name = f"{score.column.title} follows ordinary prompts less than the model without it"
    if not score.ordinary_is_share:
        gain = score.ordinary_against.difference.words("{:+.1f}".format)
        return f"{name}: its CLIP score on {score.ordinary.n} of them is {gain} points apart."
    without = f", without it {interval(control.ordinary)}" if control and control.ordinary else ""
    return f"{name}: it draws {interval(score.ordinary)} of {score.ordinary.n} right{without}."


def _near_words(score: ColumnScore, control: ColumnScore | None) -> str:
    assert score.near
    without = f" Without an adapter it is {interval(control.near)}." if control and control.near else ""
    return (
        f"{score.column.title} may have learnt its pictures by heart: {interval(score.near)} of what it draws are "
        f"nearer to one of them than they are to each other.{without}"
    )


def _fall_words(score: ColumnScore, fall: Fall) -> str:
    name = fall.other.column.title.replace("Step", "step") if fall.other.column.use else "the model without an adapter"
    good = ", which is as good" if measure_of(score) else ""
    return (
        f"{score.column.title} draws less varied pictures than {name}{good}: over {fall.difference.n} prompts their "
        f"diversity is {100 * fall.share:.0f} % lower."
    )
