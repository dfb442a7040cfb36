"""What a checkpoint says without the adapter that is trained beside it, and what of that is to stay as it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from engines.training.adapter import AdapterInTraining
from engines.training.latents import TrainingPicture, stacked_latents
from engines.training.objective import Denoising, Question
from engines.training.prior import other_prompt
from engines.training.processes import Processes
from engines.training.text import Texts
from engines.training.unet import Denoiser, told_of
from studio.domain.training import TrainingPlan

_WITHOUT_WORDS = 0.1
"""Of what is to stay: guidance leads away from what is drawn without words, so that must not move either."""

TimeIds = Sequence[tuple[int, ...]]
"""SDXL's micro-conditions of a batch."""


@dataclass(frozen=True, kw_only=True)
class Before:
    """The checkpoint as it was; `texts` reads captions as it does."""

    denoiser: Denoiser
    adapter: AdapterInTraining
    texts: Texts
    is_sdxl: bool

    @torch.no_grad()
    def says(self, asked: tuple[Tensor, Tensor], captions: Sequence[str], time_ids: TimeIds) -> Tensor:
        """Its prediction for noisy latents at timesteps, in float32."""
        with self.adapter.off():
            told = told_of(self.texts.read(captions), time_ids, is_sdxl=self.is_sdxl)
            return self.denoiser.predict(*asked, told).float()


@dataclass(frozen=True, kw_only=True)
class Known:
    """This process's share of a batch of what is to stay: what is asked, and what was `said` before. The share counts
    `weight` of the whole."""

    question: Question
    captions: Sequence[str]
    time_ids: TimeIds
    said: Tensor
    weight: float


class Preservation:
    """Batches of `pictures` that the checkpoint made itself, all of one size. A batch depends on nothing but its place.

    For the checkpoint itself says what is wanted, any words will do: the noisier a picture is, the more often it is
    asked for with those of another prompt, so that more stays than what those few pictures show.

    What was said before is found out for `ahead` batches together: for small models a few rows take nearly as long as
    many. Those are the same batches wherever a training is gone on with, so every number is the same, too.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        objective: Denoising,
        before: Before,
        processes: Processes,
        pictures: Sequence[TrainingPicture],
        ahead: int,
    ) -> None:
        self._plan = plan
        self._objective = objective
        self._before = before
        self._processes = processes
        self._pictures = pictures
        self._ahead = ahead
        self._start: int | None = None
        self._known: list[Known] = []

    def batch(self, place: int) -> Known:
        """That at `place` in the whole training."""
        start = place - place % self._ahead
        if start != self._start:
            self._known = self._found_out(range(start, start + self._ahead))
            self._start = start
        return self._known[place - start]

    def _found_out(self, places: range) -> list[Known]:
        share, weight = self._processes.share(self._plan.batch_size)
        asked = [self._asked(place) for place in places]
        questions = [question.part(share) for question, _, _ in asked]
        captions = [words[share] for _, words, _ in asked]
        time_ids = [ids[share] for _, _, ids in asked]
        noisy, timesteps = (torch.cat(part) for part in zip(*(each.asked for each in questions), strict=True))
        said = self._before.says((noisy, timesteps), list(chain(*captions)), list(chain(*time_ids)))
        parts = zip(questions, captions, time_ids, said.chunk(len(places)), strict=True)
        return [
            Known(question=question, captions=words, time_ids=ids, said=answer, weight=weight)
            for question, words, ids, answer in parts
        ]

    def _asked(self, place: int) -> tuple[Question, list[str], list[tuple[int, ...]]]:
        """A whole batch: what is asked, in which words, and its micro-conditions."""
        pictures = self._drawn(place)
        generator = torch.Generator().manual_seed(self._plan.seed * 10_000_079 + place)
        latents = stacked_latents(pictures).to(self._before.denoiser.unet.device)
        question = self._objective.question(latents, generator)
        return question, self._words(place, pictures, question), [picture.time_ids for picture in pictures]

    def _words(self, place: int, pictures: Sequence[TrainingPicture], question: Question) -> list[str]:
        """What the pictures of a batch are asked for with."""
        rng = np.random.default_rng([self._plan.seed, 15, place])
        noisiness = question.timesteps.cpu().numpy() / len(self._objective.schedule)
        words: list[str] = []
        for picture, share in zip(pictures, noisiness, strict=True):
            is_silent, is_other = rng.random() < _WITHOUT_WORDS, rng.random() < share
            other = other_prompt(self._plan.prior_prompts, rng)
            words.append("" if is_silent else other if is_other else picture.caption)
        return words

    def _drawn(self, place: int) -> list[TrainingPicture]:
        rng = np.random.default_rng([self._plan.seed, 11, place])
        return [self._pictures[int(index)] for index in rng.integers(len(self._pictures), size=self._plan.batch_size)]
