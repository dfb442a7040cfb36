"""How often a pocket pipeline draws what it was told, judged by the checker."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, LCMScheduler
from PIL import Image
from scipy.stats import binomtest

from engines.pocket.checker import Verdict, judge
from engines.pocket.trials import Trial

GUIDANCE = 3.0
"""What was best on prompts of another seed."""

SKILLS = ("presence", "colour", "shape", "count", "relation", "place", "size", "background")


@dataclass
class Tally:
    """Successes and trials; `interval` is Wilson's at 95 %."""

    right: int = 0
    total: int = 0

    def add(self, is_right: bool) -> None:
        self.right += is_right
        self.total += 1

    @property
    def rate(self) -> float:
        return self.right / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        bounds = binomtest(self.right, self.total).proportion_ci(method="wilson")
        return float(bounds.low), float(bounds.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.rate:.1f} % [{100 * low:.1f}, {100 * high:.1f}] (n = {self.total})"


@dataclass
class Report:
    """Fully right pictures by kind, seen and held out; each skill over the trials that ask for it."""

    seen: dict[str, Tally] = field(default_factory=dict)
    held_out: dict[str, Tally] = field(default_factory=dict)
    skills: dict[str, Tally] = field(default_factory=dict)

    def add(self, trial: Trial, verdict: Verdict) -> None:
        group = self.held_out if trial.is_held_out else self.seen
        group.setdefault(trial.kind, Tally()).add(verdict.correct)
        for skill in SKILLS:
            answer = getattr(verdict, skill)
            if answer is not None:
                self.skills.setdefault(skill, Tally()).add(answer)

    @staticmethod
    def pooled(group: dict[str, Tally]) -> Tally:
        """All kinds of a group together."""
        return Tally(right=sum(t.right for t in group.values()), total=sum(t.total for t in group.values()))


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How pictures are drawn: in `steps` by DPM++ 2M Karras, or, where `timesteps` are given, at these by LCM."""

    steps: int = 25
    guidance: float = GUIDANCE
    timesteps: tuple[int, ...] = ()

    def scheduler(self, config: Any) -> Any:
        """The sampler, for a checkpoint whose own has `config`."""
        if self.timesteps:
            return LCMScheduler.from_config(config)
        return DPMSolverMultistepScheduler.from_config(
            config, use_karras_sigmas=True, algorithm_type="dpmsolver++", solver_order=2
        )


def draw(pipeline: Any, batch: list[Trial], size: int, sampling: Sampling) -> list[Image.Image]:
    """Make the pictures of a batch with a plain diffusers pipeline."""
    pipeline.scheduler = sampling.scheduler(pipeline.scheduler.config)
    return pipeline(
        [trial.prompt for trial in batch],
        width=size,
        height=size,
        num_inference_steps=sampling.steps,
        timesteps=list(sampling.timesteps) or None,
        guidance_scale=sampling.guidance,
        generator=[torch.Generator("cpu").manual_seed(trial.seed) for trial in batch],
    ).images


def measure(
    pipeline: Any,
    tests: list[Trial],
    *,
    size: int = 128,
    sampling: Sampling = Sampling(),
    batch_size: int = 10,
    before_judging: Callable[[Image.Image], Image.Image] | None = None,
    on_batch: Callable[[int, list[Trial], list[Image.Image], list[Verdict]], None] | None = None,
) -> Report:
    """Draw and judge every test; `on_batch` is told how many are done and what came of the last ones. `before_judging`
    takes off a picture what its prompt does not ask for, such as a style."""
    report = Report()
    for start in range(0, len(tests), batch_size):
        batch = tests[start : start + batch_size]
        images = draw(pipeline, batch, size, sampling)
        judged = images if before_judging is None else [before_judging(image) for image in images]
        verdicts = [judge(image, trial.scene) for image, trial in zip(judged, batch, strict=True)]
        for trial, verdict in zip(batch, verdicts, strict=True):
            report.add(trial, verdict)
        if on_batch is not None:
            on_batch(start + len(batch), batch, images, verdicts)
    return report
