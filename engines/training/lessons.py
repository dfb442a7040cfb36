"""What an adapter is taught at one step: the new pictures, and what the checkpoint knew before."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from engines.training.adapter import AdapterInTraining
from engines.training.captions import said
from engines.training.latents import TrainingPicture, stacked_weights
from engines.training.objective import Denoising
from engines.training.processes import Processes
from engines.training.text import FixedTexts, Texts
from engines.training.unet import Denoiser, Told
from studio.domain.training import TrainingPlan


class Lessons:
    """Adds gradients, batch by batch. A batch depends on nothing but its `place` in the whole training, so that a
    training that is resumed goes on as it would have. `prior` is what is to be preserved, if anything; `texts_before`
    reads captions as the checkpoint does without the adapter."""

    def __init__(
        self,
        plan: TrainingPlan,
        denoiser: Denoiser,
        adapter: AdapterInTraining,
        texts: Texts,
        texts_before: FixedTexts,
        objective: Denoising,
        processes: Processes,
        *,
        is_sdxl: bool,
    ) -> None:
        self.prior: Sequence[TrainingPicture] = ()
        self._plan = plan
        self._denoiser = denoiser
        self._adapter = adapter
        self._texts = texts
        self._texts_before = texts_before
        self._objective = objective
        self._processes = processes
        self._is_sdxl = is_sdxl

    def learn(
        self, pictures: Sequence[TrainingPicture], place: int, backward: Callable[[Tensor], None] = Tensor.backward
    ) -> float:
        """Add the gradients of one batch, and of one of what the checkpoint knew: of that, the adapter is to say what
        is said without it. `backward` adds those of a loss. Gives the share of the new pictures in the step's loss.
        Of both batches only this process's share is learnt from; the sum over all processes is the whole."""
        plan = self._plan
        share, count = self._processes.share(len(pictures))
        weights = stacked_weights(pictures)
        new = self._objective.question(self._stacked(pictures), self._generator(place, 10_000_019), weights).part(share)
        captions, time_ids = self._said(pictures, place)[share], [each.time_ids for each in pictures][share]
        prior = self._prior_batch(place)
        if not prior:
            said_new = self._denoiser.predict(*new.asked, self.told(captions, time_ids))
            error = count * self._objective.loss(said_new, new)
            backward(error / plan.accumulation)
            return float(error.detach()) / plan.accumulation
        share, count_old = self._processes.share(len(prior))
        old = self._objective.question(self._stacked(prior), self._generator(place, 10_000_079)).part(share)
        prior = prior[share]
        known, known_ids = [each.caption for each in prior], [each.time_ids for each in prior]
        with torch.no_grad(), self._adapter.off():
            told = self._said_to_unet(self._texts_before, known, known_ids)
            wanted = self._denoiser.predict(*old.asked, told).float()
        if new.noisy.shape[2:] == old.noisy.shape[2:]:  # both in one call: small ones take little longer than one alone
            told = self.told([*captions, *known], [*time_ids, *known_ids])
            both = (torch.cat(pair) for pair in zip(new.asked, old.asked, strict=True))
            said_new, said_old = self._denoiser.predict(*both, told).split([len(captions), len(known)])
        else:
            said_new = self._denoiser.predict(*new.asked, self.told(captions, time_ids))
            said_old = self._denoiser.predict(*old.asked, self.told(known, known_ids))
        error = count * self._objective.loss(said_new, new)
        change = count_old * self._objective.preservation(said_old, wanted, old)
        backward((error + plan.prior_weight * change) / plan.accumulation)
        return float(error.detach()) / plan.accumulation

    def told(self, captions: Sequence[str], time_ids: Sequence[tuple[int, ...]]) -> Told:
        """What the UNet is told of a batch; `time_ids` are SDXL's micro-conditions."""
        return self._said_to_unet(self._texts, captions, time_ids)

    def _said(self, pictures: Sequence[TrainingPicture], place: int) -> list[str]:
        plan, rng = self._plan, np.random.default_rng([self._plan.seed, 9, place])
        return [
            said(each.caption, plan.trigger, dropout=plan.caption_dropout, shuffle=plan.shuffle_tags, rng=rng)
            for each in pictures
        ]

    def _prior_batch(self, place: int) -> list[TrainingPicture]:
        if not self.prior or not self._plan.prior_weight:
            return []
        rng = np.random.default_rng([self._plan.seed, 11, place])
        return [self.prior[int(index)] for index in rng.integers(len(self.prior), size=self._plan.batch_size)]

    def _generator(self, place: int, stride: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._plan.seed * stride + place)

    def _stacked(self, pictures: Sequence[TrainingPicture]) -> Tensor:
        return torch.stack([each.latents for each in pictures]).float().to(self._denoiser.unet.device)

    def _said_to_unet(self, texts: Texts, captions: Sequence[str], time_ids: Sequence[tuple[int, ...]]) -> Told:
        prompt = texts.read(captions)
        rows = torch.tensor(time_ids, dtype=torch.float32, device=prompt.embeds.device) if self._is_sdxl else None
        return Told(prompt=prompt, negative=prompt, time_ids=rows)
