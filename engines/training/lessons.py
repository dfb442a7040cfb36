"""What an adapter is taught at one step: the new pictures, and what the checkpoint knew before."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from engines.training.before import Before, Known, Preservation, TimeIds
from engines.training.captions import said
from engines.training.latents import TrainingPicture, stacked_latents, stacked_weights
from engines.training.objective import Denoising, Question
from engines.training.processes import Processes
from engines.training.text import Texts
from engines.training.unet import Told, told_of
from studio.domain.training import TrainingPlan


class Lessons:
    """Adds gradients, batch by batch. A batch depends on nothing but its `place` in the whole training, so that a
    training that is resumed goes on as it would have. `before` is the checkpoint without the adapter, `texts` reads
    captions as it is with it."""

    def __init__(
        self, plan: TrainingPlan, before: Before, texts: Texts, objective: Denoising, processes: Processes
    ) -> None:
        self._plan = plan
        self._before = before
        self._denoiser = before.denoiser
        self._texts = texts
        self._objective = objective
        self._processes = processes
        self._preservation: Preservation | None = None

    def preserve(self, pictures: Sequence[TrainingPicture], ahead: int) -> None:
        """Teach beside everything else that these stay as they are; see `Preservation`."""
        if pictures and self._plan.prior_weight:
            self._preservation = Preservation(
                self._plan, self._objective, self._before, self._processes, pictures, ahead
            )

    def learn(
        self, pictures: Sequence[TrainingPicture], place: int, backward: Callable[[Tensor], None] = Tensor.backward
    ) -> float:
        """Add the gradients of one batch, and of one of what the checkpoint knew: of that, the adapter is to say what
        is said without it. `backward` adds those of a loss. Gives the share of the new pictures in the step's loss.
        Of both batches only this process's share is learnt from; the sum over all processes is the whole."""
        plan = self._plan
        share, weight = self._processes.share(len(pictures))
        generator = torch.Generator().manual_seed(plan.seed * 10_000_019 + place)
        latents = stacked_latents(pictures).to(self._denoiser.unet.device)
        new = self._objective.question(latents, generator, stacked_weights(pictures)).part(share)
        captions, time_ids = self._said(pictures, place)[share], [each.time_ids for each in pictures][share]
        strength = self._strength(place)
        if strength < 1:
            new = self._between(new, captions, time_ids, strength)
        known = self._preservation and self._preservation.batch(place)
        with self._before.adapter.at(strength):
            said_new, said_known = self._answers(new, captions, time_ids, known)
        error = weight * self._objective.loss(said_new, new)
        total = error
        if known and said_known is not None:
            change = known.weight * self._objective.preservation(said_known, known.said, known.question)
            total = error + plan.prior_weight * change
        backward(total / plan.accumulation)
        return float(error.detach()) / plan.accumulation

    def told(self, captions: Sequence[str], time_ids: TimeIds) -> Told:
        """What the UNet is told of a batch; `time_ids` are SDXL's micro-conditions."""
        return told_of(self._texts.read(captions), time_ids, is_sdxl=self._before.is_sdxl)

    def _answers(
        self, new: Question, captions: Sequence[str], time_ids: TimeIds, known: Known | None
    ) -> tuple[Tensor, Tensor | None]:
        """What is said of new pictures, and of what was known."""
        if known is None:
            return self._denoiser.predict(*new.asked, self.told(captions, time_ids)), None
        if new.noisy.shape[2:] != known.question.noisy.shape[2:]:
            said_known = self._denoiser.predict(*known.question.asked, self.told(known.captions, known.time_ids))
            return self._denoiser.predict(*new.asked, self.told(captions, time_ids)), said_known
        # Both in one call: small ones take little longer than one alone.
        told = self.told([*captions, *known.captions], [*time_ids, *known.time_ids])
        both = (torch.cat(pair) for pair in zip(new.asked, known.question.asked, strict=True))
        said_new, said_known = self._denoiser.predict(*both, told).split([len(captions), len(known.captions)])
        return said_new, said_known

    def _strength(self, place: int) -> float:
        """How strongly the adapter acts on a batch: with a gradual one, less than fully on every other."""
        if not self._plan.gradual:
            return 1.0
        rng = np.random.default_rng([self._plan.seed, 13, place])
        return 1.0 if rng.random() < 0.5 else float(rng.random())

    def _between(self, question: Question, captions: Sequence[str], time_ids: TimeIds, strength: float) -> Question:
        """It with an answer between that of the checkpoint and the true one, as sliders of a concept have it (Gandikota
        et al., 2023, arXiv:2311.12092). A mean of scores is a product of densities, p^(1-w) · q^w, in which what p
        hardly ever draws shows only as w nears 1; so w rises fast with the strength."""
        was = self._before.says(question.asked, captions, time_ids)
        return replace(question, wanted=was.lerp(question.wanted, 1 - (1 - strength) ** 3))

    def _said(self, pictures: Sequence[TrainingPicture], place: int) -> list[str]:
        plan, rng = self._plan, np.random.default_rng([self._plan.seed, 9, place])
        return [
            said(each.caption, plan.trigger, dropout=plan.caption_dropout, shuffle=plan.shuffle_tags, rng=rng)
            for each in pictures
        ]
