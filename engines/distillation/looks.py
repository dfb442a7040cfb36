"""Looking at a student on the way: what it draws in few steps, and how good that is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engines.distillation.objectives import endpoint
from engines.distillation.pictures import noise_of
from engines.distillation.reading import CaptionReader
from engines.distillation.sampling import draw_few
from engines.distillation.unet_pair import UnetPair
from engines.pocket.grammar import parse
from engines.pocket.trials import trials
from engines.training.diffusion import NoiseSchedule
from engines.training.drawing import decoded, judged, save_picture
from engines.training.unet import Told, whole_picture
from studio.domain.distillation import FEW_STEPS
from studio.domain.run_events import Looked
from studio.domain.run_files import sample_name, teacher_name
from studio.domain.timesteps import Grid, timesteps_on, trailing_timesteps

SHOWN = 4
"""Prompts whose pictures are kept to be looked at."""
MEASURED_STEPS = 4
_REFERENCES = 8
"""Prompts that the teacher draws, too: in many steps, which takes long."""
_TEACHER_STEPS = 25
_BATCH = 8
_SEED = 20_261_126
"""Of the prompts and noise that are looked at; training and the tests of shipped models draw from other sequences."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a student is asked each time: these prompts at `size` px, its timesteps on `grid`; the teacher's answers
    have `guidance`."""

    prompts: tuple[str, ...]
    size: int
    guidance: float
    grid: Grid
    is_sdxl: bool


class Looker:
    """Draws the same prompts from the same noise each time, and compares with what the teacher made of them."""

    def __init__(
        self,
        pair: UnetPair,
        reader: CaptionReader,
        vae: Any,
        schedule: NoiseSchedule,
        question: Question,
        folder: Path,
    ) -> None:
        self._pair = pair
        self._reader = reader
        self._vae = vae
        self._schedule = schedule
        self._question = question
        self._folder = folder
        self._wanted: Tensor | None = None

    def look(self, step: int) -> Looked:
        """Measure the student as it is now, and keep pictures of it in 2, 4 and 8 steps, after training step `step`.

        Raises:
            OSError: they cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        wanted = self._teachers()
        drawn = self._students(MEASURED_STEPS, len(self._question.prompts))
        pictures = decoded(self._vae, drawn)
        for steps in FEW_STEPS:
            few = pictures if steps == MEASURED_STEPS else decoded(self._vae, self._students(steps, SHOWN))
            for index, picture in enumerate(few[:SHOWN]):
                save_picture(picture, self._folder / sample_name(step, steps, index))
        verdicts = judged(pictures, self._question.prompts)
        return Looked(
            step=step,
            prompts=self._question.prompts[:SHOWN],
            right=sum(verdicts) if verdicts else None,
            checked=len(verdicts),
            distance=float((drawn[: len(wanted)] - wanted).square().mean().sqrt()),
        )

    def _teachers(self) -> Tensor:
        """Where the teacher goes from the same noise; its pictures are kept, too."""
        if self._wanted is None:
            grid = trailing_timesteps(_TEACHER_STEPS)
            parts = []
            for told, noise, _ in self._batches(_REFERENCES):
                guidance = torch.full((len(noise),), self._question.guidance, device=noise.device)
                parts.append(endpoint(self._pair, self._schedule, noise, grid, told, guidance))
            self._wanted = torch.cat(parts)
            for index, picture in enumerate(decoded(self._vae, self._wanted[:SHOWN])):
                save_picture(picture, self._folder / teacher_name(index))
        return self._wanted

    def _students(self, steps: int, count: int) -> Tensor:
        timesteps = timesteps_on(self._question.grid, steps)
        return torch.cat(
            [
                draw_few(self._pair, self._schedule, noise, timesteps, told, generator)
                for told, noise, generator in self._batches(count)
            ]
        )

    def _batches(self, count: int) -> Iterator[tuple[Told, Tensor, torch.Generator]]:
        """What is told of the first `count` prompts, their noise, and where later noise comes from."""
        count = min(count, len(self._question.prompts))
        for start in range(0, count, _BATCH):
            picks = range(start, min(start + _BATCH, count))
            time_ids = whole_picture(self._question.size, len(picks), self._question.is_sdxl)
            told = self._reader.told([self._question.prompts[index] for index in picks], time_ids)
            generator = torch.Generator().manual_seed(_SEED + start)
            yield told, noise_of(self._pair, (_SEED,), picks, self._question.size), generator


def looked_at(captions: Sequence[str], is_pocket: bool) -> tuple[str, ...]:
    """The prompts to look at a student with: such as a pocket model was tested on, else captions of its pictures."""
    if is_pocket:
        return tuple(trial.prompt for trial in trials(4, 1, _SEED) if parse(trial.prompt) is not None)
    return tuple(dict.fromkeys(captions))[:_REFERENCES]
