"""What an adapter is taught at one step: the new pictures, and what the checkpoint knew before."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engines.training.adapter import AdapterInTraining
from engines.training.captions import said
from engines.training.latents import TrainingPicture
from engines.training.objective import Denoising
from engines.training.text import Texts
from engines.training.unet import Denoiser, Told
from studio.domain.training import TrainingPlan


class Lessons:
    """Adds gradients, batch by batch. A batch depends on nothing but its `place` in the whole training, so that a
    training that is resumed goes on as it would have. `prior` is what is to be preserved, if anything."""

    def __init__(
        self,
        plan: TrainingPlan,
        denoiser: Denoiser,
        adapter: AdapterInTraining,
        texts: Texts,
        objective: Denoising,
        *,
        is_sdxl: bool,
    ) -> None:
        self.prior: Sequence[TrainingPicture] = ()
        self._plan = plan
        self._denoiser = denoiser
        self._adapter = adapter
        self._texts = texts
        self._objective = objective
        self._is_sdxl = is_sdxl

    def learn(self, pictures: Sequence[TrainingPicture], place: int) -> float:
        """Add the gradients of one batch; gives its share of the step's loss."""
        plan = self._plan
        rng = np.random.default_rng([plan.seed, 9, place])
        captions = [
            said(each.caption, plan.trigger, dropout=plan.caption_dropout, shuffle=plan.shuffle_tags, rng=rng)
            for each in pictures
        ]
        told = self.told(captions, [each.time_ids for each in pictures])
        generator = torch.Generator().manual_seed(plan.seed * 10_000_019 + place)
        loss = self._objective.loss(
            lambda noisy, at: self._denoiser.predict(noisy, at, told), self._stacked(pictures), generator
        )
        share = loss / plan.accumulation
        share.backward()
        return float(share.detach())

    def preserve(self, place: int) -> None:
        """Add the gradients of one batch of what the checkpoint knew: with the adapter it is to say what it says
        without."""
        plan = self._plan
        if not self.prior or not plan.prior_weight:
            return
        rng = np.random.default_rng([plan.seed, 11, place])
        pictures = [self.prior[int(index)] for index in rng.integers(len(self.prior), size=plan.batch_size)]
        captions, time_ids = [each.caption for each in pictures], [each.time_ids for each in pictures]
        with torch.no_grad(), self._adapter.off():
            before = self.told(captions, time_ids)
        told = self.told(captions, time_ids) if self._adapter.changes_text else before
        generator = torch.Generator().manual_seed(plan.seed * 10_000_079 + place)

        def difference(noisy: Tensor, at: Tensor) -> Tensor:
            with torch.no_grad(), self._adapter.off():
                wanted = self._denoiser.predict(noisy, at, before).float()
            return self._denoiser.predict(noisy, at, told).float() - wanted

        loss = self._objective.preservation(difference, self._stacked(pictures), generator)
        (plan.prior_weight / plan.accumulation * loss).backward()

    def _stacked(self, pictures: Sequence[TrainingPicture]) -> Tensor:
        return torch.stack([each.latents for each in pictures]).float().to(self._denoiser.unet.device)

    def told(self, captions: Sequence[str], time_ids: Sequence[tuple[int, ...]]) -> Told:
        """What the UNet is told of a batch; `time_ids` are SDXL's micro-conditions."""
        prompt = self._texts.read(captions)
        rows = torch.tensor(time_ids, dtype=torch.float32, device=prompt.embeds.device) if self._is_sdxl else None
        return Told(prompt=prompt, negative=prompt, time_ids=rows)
