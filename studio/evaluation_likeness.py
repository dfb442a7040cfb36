"""How alike an evaluation's pictures are: among themselves, to the baseline's, to what adapters learnt from.

A CLIP score tells none of it: a system that draws one picture for all seeds, or one that it learnt by heart, may score
well.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from studio.diversity import is_surely_near
from studio.domain.cells import CellResult
from studio.domain.evaluation import Evaluation, System
from studio.evaluation_files import Likeness, Nearness
from studio.paired import Paired, compare_all
from studio.statistics import Estimate, mean, share


@dataclass(frozen=True, kw_only=True)
class SystemLikeness:
    """Of one system: `varied` is how unlike its pictures of one prompt are (1 less the mean cosine of pairs: 0 for
    pictures that are the same), `against` how that differs from the baseline's, prompt by prompt; `to_baseline` is the
    mean cosine with the baseline's pictures of the same prompt and seed. `near` is the share of its pictures that are
    nearer to one that its adapters learnt from than those are to each other, and `near_without` that of the same
    without adapters; pictures that the checker passes do not count as near, nor do such whose prompt is a caption."""

    system: System
    varied: Estimate | None
    against: Paired | None
    to_baseline: Estimate | None
    near: Estimate | None
    near_without: Estimate | None

    @property
    def may_have_learnt_by_heart(self) -> bool:
        """Whether more is near than chance and the model without the adapter explain."""
        return is_surely_near(self.near, self.near_without)


def likenesses(
    evaluation: Evaluation, places: Collection[int], results: Mapping[int, CellResult], likeness: Likeness
) -> tuple[SystemLikeness, ...]:
    """Of every system, over the prompts at `places`; () where nothing is known."""
    if not likeness.judge:
        return ()
    right = {index for index, result in results.items() if result.right}
    counted = {cell.index for cell in evaluation.cells if cell.place in places}
    varied = {
        system.name: {place: value for place, value in likeness.varied.get(system.name, {}).items() if place in places}
        for system in evaluation.systems
    }
    against = _against(evaluation, varied)
    return tuple(
        SystemLikeness(
            system=system,
            varied=mean(list(varied[system.name].values())) if varied[system.name] else None,
            against=against.get(system.name),
            to_baseline=_to_baseline(evaluation, system, places, likeness.to_baseline),
            **_near(likeness.near.get(system.name), counted, right),
        )
        for system in evaluation.systems
    )


def _against(evaluation: Evaluation, varied: Mapping[str, Mapping[int, float]]) -> dict[str, Paired]:
    base = varied[evaluation.baseline]
    pairs = {
        system.name: [value - base[place] for place, value in varied[system.name].items() if place in base]
        for system in evaluation.others
    }
    able = {name: told for name, told in pairs.items() if len(told) > 1}
    return dict(zip(able, compare_all(list(able.values())), strict=True)) if able else {}


def _to_baseline(
    evaluation: Evaluation, system: System, places: Collection[int], cosines: Mapping[int, float]
) -> Estimate | None:
    by_prompt: dict[int, list[float]] = {}
    for cell in evaluation.cells:
        if cell.system.name == system.name and cell.index in cosines and cell.place in places:
            by_prompt.setdefault(cell.place, []).append(cosines[cell.index])
    if not by_prompt:
        return None
    told = mean([fmean(told) for told in by_prompt.values()])
    return told if told.high is None else replace(told, high=min(1.0, told.high))  # no cosine is more


def _near(told: Nearness | None, counted: Collection[int], right: Collection[int]) -> dict[str, Estimate | None]:
    if told is None:
        return {"near": None, "near_without": None}

    def above(cosines: Mapping[int, float]) -> Estimate | None:
        seen = {index: cosine for index, cosine in cosines.items() if index in counted}
        near = sum(cosine > told.threshold and index not in right for index, cosine in seen.items())
        return share(near, len(seen)) if seen else None

    return {"near": above(told.cosines), "near_without": above(told.control)}
