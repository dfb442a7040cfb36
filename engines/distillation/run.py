"""A whole distillation: pictures gathered, an adapter trained and looked at, the best of it written to files."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from engines.distillation.endpoints import KeptEndpoints
from engines.distillation.looks import Looker, Question, looked_at
from engines.distillation.objectives import Flash, Lcm, Objective, OwnPath
from engines.distillation.pictures import (
    FolderPictures,
    PictureSource,
    ScenePictures,
    TeacherPictures,
    TrainingSet,
    gather,
)
from engines.distillation.reading import CaptionReader
from engines.distillation.terms import DistributionMatching, Term
from engines.distillation.trainer import distil
from engines.distillation.unet_pair import UnetPair
from engines.loading import Loaded
from engines.training.best import Best
from engines.training.control import Control, Pace
from engines.training.diffusion import NoiseSchedule
from engines.training.loop import Plan, Taken, Trainee
from engines.training.lora import TrainableLora, reached
from engines.training.metadata import base_metadata
from engines.training.preparing import prepare_for_training
from engines.training.unet import Told
from lora_registry.export import write_adapter
from lora_registry.weights import LowRank
from studio.domain.adapter import Layout
from studio.domain.distillation import FEW_STEPS, GRIDS, OBJECTIVE_TITLES, DistillationPlan
from studio.domain.errors import TrainingFailed
from studio.domain.run_events import Exported, Preparing
from studio.domain.run_files import EXPORTS, SAMPLES
from studio.domain.sampling_rules import RULES_KEY, SamplingRules

LCM_SHARE = 0.6
"""Of a training by LCM and then along the student's own path, the part before that."""
_EMA = 0.995


class Distillation:
    """One run in `folder`, begun or gone on with. `items` are the pictures and captions of a plan whose source are
    files; `dtype` is what the UNet's matrix products compute in."""

    def __init__(
        self,
        loaded: Loaded,
        plan: DistillationPlan,
        items: Sequence[tuple[Path, str]],
        folder: Path,
        control: Control,
        dtype: torch.dtype,
    ) -> None:
        self._loaded = loaded
        self._plan = plan
        self._items = items
        self._folder = folder
        self._control = control
        self._pipeline = loaded.pipeline
        self._is_sdxl = loaded.checkpoint.family == "sdxl"
        self._schedule = NoiseSchedule.of(self._pipeline.scheduler.config)
        self._reader = CaptionReader(self._pipeline)
        self._pair = self._new_pair(dtype)
        self._endpoints = KeptEndpoints(folder / "endpoints", plan.num_steps)
        self._pace = Pace(control, plan.num_steps, plan.batch_size)
        self._best = Best(folder)

    def run(self) -> None:
        """Go on to the end, then write the best adapter; see `export` for what a stop leaves.

        Raises:
            TrainingFailed: values ran over.
            DatasetError: no picture can be used.
            OSError, StorageFailed: the folder cannot be written.
        """
        plan = self._plan
        pictures = gather(self._source(), self._folder / "pictures", self._control.check, self._tell_gathered)
        looker = self._looker(pictures)
        if self._best.look is None:
            self._look(looker, 0)
        training = Plan(
            name="lora",
            steps=plan.num_steps,
            learning_rate=plan.learning_rate,
            warmup=max(1, min(200, plan.num_steps // 10)),
            ema_decay=_EMA,
            seed=plan.seed,
            dtype=self._pair.dtype,
        )

        def on_step(trainee: Trainee, taken: Taken) -> None:
            self._pace.note(taken.step, taken.loss)
            if taken.step % plan.look_every == 0 or taken.step == plan.num_steps:
                trainee.save()
                with trainee.averaged():
                    self._look(looker, taken.step)

        try:
            distil(
                self._pair, self._objective, self._batches(pictures), training, self._folder, on_step,
                terms_at=self._terms,
                question_of=self._endpoints.question_of if plan.objective == "flash" else lambda step: step,
            )  # fmt: skip
        except FloatingPointError as error:
            raise TrainingFailed(
                f"The numbers ran over: {error}.", "Try a lower learning rate; what was best before is kept."
            ) from error
        self.export()
        self._endpoints.forget()

    def export(self) -> None:
        """Write the best adapter so far in both layouts; nothing where none is better than none."""
        kept, look = self._best.factors(), self._best.look
        if kept is None or look is None:
            return
        factors = {path: LowRank(**parts) for path, parts in kept.items()}
        metadata = self._metadata(look.step)
        for layout, name in EXPORTS.items():
            family = self._loaded.checkpoint.family
            write_adapter(self._folder / name, {"unet": factors}, family, cast(Layout, layout), metadata)
        self._control.tell(Exported(step=look.step))

    def _new_pair(self, dtype: torch.dtype) -> UnetPair:
        plan, unet = self._plan, self._pipeline.unet
        is_pocket = self._loaded.checkpoint.is_pocket
        prepare_for_training(self._pipeline, is_pocket=is_pocket, is_checkpointed=not is_pocket)
        torch.manual_seed(plan.seed)
        lora = TrainableLora(unet, reached(unet, plan.reach), plan.rank, plan.rank)
        return UnetPair(unet=unet, lora=lora, prediction_type=self._loaded.prediction_type, dtype=dtype)

    def _source(self) -> PictureSource:
        plan, vae, weights = self._plan, self._pipeline.vae, self._loaded.sha256
        if plan.source in ("folder", "hub"):
            return FolderPictures(vae=vae, weights=weights, items=self._items, size=plan.size, is_sdxl=self._is_sdxl)
        if plan.source == "scenes":
            return ScenePictures(
                vae=vae, weights=weights, count=plan.num_pictures, size=plan.size, seed=plan.seed, is_sdxl=self._is_sdxl
            )
        return TeacherPictures(
            pair=self._pair, reader=self._reader, schedule=self._schedule, weights=weights, captions=plan.captions,
            count=plan.num_pictures, size=plan.size, guidance=plan.guidance_scale, seed=plan.seed,
            is_sdxl=self._is_sdxl, piece=plan.batch_size,
        )  # fmt: skip

    def _looker(self, pictures: TrainingSet) -> Looker:
        plan = self._plan
        question = Question(
            prompts=looked_at(pictures.captions, self._loaded.checkpoint.is_pocket),
            size=plan.size,
            guidance=plan.guidance_scale,
            grid=GRIDS[plan.objective],
            is_sdxl=self._is_sdxl,
        )
        vae, folder = self._pipeline.vae, self._folder / SAMPLES
        return Looker(self._pair, self._reader, vae, self._schedule, question, folder)

    def _batches(self, pictures: TrainingSet) -> Callable[[int], tuple[Tensor, Told]]:
        device = self._pair.unet.device

        def batch(step: int) -> tuple[Tensor, Told]:
            self._control.check()
            rng = np.random.default_rng([self._plan.seed, 7, step])
            picks = torch.from_numpy(rng.integers(len(pictures), size=self._plan.batch_size))
            time_ids = None if pictures.time_ids is None else pictures.time_ids[picks]
            told = self._reader.told([pictures.captions[int(index)] for index in picks], time_ids)
            self._pace.begin()
            return pictures.latents[picks].float().to(device), told

        return batch

    def _objective(self, step: int) -> Objective[Told]:
        guidance = (self._plan.guidance_scale, self._plan.guidance_scale)
        if self._plan.objective == "flash":
            progress, recall = step / self._plan.num_steps, partial(self._endpoints.recall, step)
            return Flash(schedule=self._schedule, guidance=guidance, progress=progress, recall=recall)
        if self._is_on_own_path(step):
            return OwnPath(schedule=self._schedule, guidance=guidance, grid=GRIDS["own_path"])
        return Lcm(schedule=self._schedule, guidance=guidance)

    def _terms(self, step: int) -> list[Term[Told]]:
        plan = self._plan
        if not plan.distribution_matching or not self._is_on_own_path(step):
            return []
        weight, guidance = plan.distribution_matching, plan.guidance_scale
        return [DistributionMatching(schedule=self._schedule, guidance=guidance, weight=weight)]

    def _is_on_own_path(self, step: int) -> bool:
        return self._plan.objective == "own_path" and step / self._plan.num_steps >= LCM_SHARE

    def _tell_gathered(self, done: int, total: int) -> None:
        self._control.tell(Preparing(done=done, total=total))

    def _look(self, looker: Looker, step: int) -> None:
        look = looker.look(step)
        self._best.offer(look, lambda: {path: vars(change) for path, change in self._pair.lora.factors().items()})
        self._control.tell(look)

    def _metadata(self, step: int) -> dict[str, str]:
        plan, checkpoint, taught = self._plan, self._loaded.checkpoint, OBJECTIVE_TITLES[self._plan.objective]
        rules = SamplingRules(
            checkpoint=checkpoint.id if checkpoint.is_pocket else None,
            grid=GRIDS[plan.objective],
            trained_steps=FEW_STEPS,
            max_guidance=1.0,
            licence=checkpoint.licence,
            note=f"{taught}: distilled from {checkpoint.title}, guidance {plan.guidance_scale:g}, {step} steps.",
        )
        return {
            **base_metadata(self._loaded, title=plan.name, size=plan.size, rank=plan.rank, alpha=plan.rank),
            RULES_KEY: rules.model_dump_json(),
            "ss_learning_rate": str(plan.learning_rate),
            "ss_max_train_steps": str(plan.num_steps),
            "ss_steps": str(step),
            "ss_seed": str(plan.seed),
        }
