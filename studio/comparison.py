"""What each column of a comparison took and gave: times, speed-up, likeness to the baseline, prompts drawn right."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from engines.pocket.checker import judge
from engines.pocket.grammar import parse
from studio.domain.flash import Column, Comparison
from studio.domain.images import ImageRecord
from studio.domain.prompt_syntax import plain_words
from studio.domain.scores import Score
from studio.gallery import opened
from studio.similarity import ssim
from studio.statistics import Estimate, Spread, mean, median, share, spread

PHASES = ("text", "denoise", "decode", "total")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one column, over its pictures so far. Times are in seconds; `speed_up` and `likeness` (structural similarity)
    are against the baseline's picture of the same prompt and seed, `right` is the share that the checker passes. `clip`
    is the CLIP score (cosine · 100) and `clip_gain` how much it is above the baseline's; their unit is the prompt, and
    its seeds are averaged first. None: there is nothing to measure it by."""

    column: Column
    n: int
    seconds: Mapping[str, Spread]
    peak_memory_mb: float
    speed_up: Estimate | None
    likeness: Estimate | None
    right: Estimate | None
    clip: Estimate | None
    clip_gain: Estimate | None


def figures(
    comparison: Comparison,
    pictures: Mapping[int, ImageRecord],
    path_of: Callable[[ImageRecord], Path],
    *,
    is_pocket: bool,
    scores: Mapping[str, Score],
) -> tuple[Figures, ...]:
    """Of every column that has a picture yet; `pictures` are by the index of their cell, `scores` by their ids."""
    by_column = comparison.by_column(pictures)
    baseline = by_column[comparison.baseline.name] if comparison.baseline else {}
    clips = {image_id: 100 * score.cosine for image_id, score in scores.items()}
    seeds = len(comparison.seeds)
    return tuple(
        _of_column(column, records, {} if column.is_baseline else baseline, path_of, is_pocket, clips, seeds)
        for column in comparison.columns
        if (records := by_column[column.name])
    )


def _of_column(
    column: Column,
    records: Mapping[int, ImageRecord],
    baseline: Mapping[int, ImageRecord],
    path_of: Callable[[ImageRecord], Path],
    is_pocket: bool,
    clips: Mapping[str, float],
    seeds: int,
) -> Figures:
    pairs = [(records[row], baseline[row]) for row in records if row in baseline]
    ratios = [theirs.seconds["total"] / ours.seconds["total"] for ours, theirs in pairs if ours.seconds["total"] > 0]
    likeness = [ssim(opened(path_of(ours)), opened(path_of(theirs))) for ours, theirs in pairs]
    verdicts = _verdicts(list(records.values()), path_of) if is_pocket else []
    ours, theirs = (
        {row: clips[record.id] for row, record in column_records.items() if record.id in clips}
        for column_records in (records, baseline)
    )
    return Figures(
        column=column,
        n=len(records),
        seconds={phase: spread([record.seconds.get(phase, 0.0) for record in records.values()]) for phase in PHASES},
        peak_memory_mb=max(record.peak_memory_mb for record in records.values()),
        speed_up=median(ratios) if ratios else None,
        likeness=median(likeness) if likeness else None,
        right=share(sum(verdicts), len(verdicts)) if verdicts else None,
        clip=over_prompts(ours, seeds),
        clip_gain=over_prompts({row: ours[row] - theirs[row] for row in ours if row in theirs}, seeds),
    )


def over_prompts(values: Mapping[int, float], seeds: int) -> Estimate | None:
    """The mean over prompts of their pictures' mean; `values` are by row, of which each prompt has `seeds`."""
    prompts: dict[int, list[float]] = defaultdict(list)
    for row, value in values.items():
        prompts[row // seeds].append(value)
    return mean([fmean(of_prompt) for of_prompt in prompts.values()]) if prompts else None


def _verdicts(records: Sequence[ImageRecord], path_of: Callable[[ImageRecord], Path]) -> list[bool]:
    """Whether each picture shows what its prompt says, of those whose prompt says what can be checked."""
    scenes = [(record, parse(plain_words(record.prompt_as_run))) for record in records]
    return [judge(opened(path_of(record)), scene).correct for record, scene in scenes if scene is not None]
