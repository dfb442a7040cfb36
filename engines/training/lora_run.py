"""A whole training of a LoRA: pictures read, an adapter trained, looked at and measured, the best of it kept."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from engines.loading import Loaded
from engines.training.adapter import AdapterInTraining
from engines.training.before import Before
from engines.training.best import Best
from engines.training.captions import with_trigger
from engines.training.checkpoints import Checkpoints
from engines.training.control import Control, Pace
from engines.training.diffusion import NoiseSchedule
from engines.training.drawing import save_picture
from engines.training.footprint import LARGE_AT_ONCE, POCKET_AT_ONCE
from engines.training.latents import LatentStore, TrainingPicture, gather_pictures
from engines.training.lessons import Lessons
from engines.training.loop import Plan, Trainee
from engines.training.masks import MaskStore
from engines.training.metadata import adapter_metadata
from engines.training.objective import Denoising
from engines.training.optimizers import new_optimizer
from engines.training.order import Order
from engines.training.preparing import Compute, prepare_for_training
from engines.training.prior import prior_pictures, prior_prompts
from engines.training.probes import Probe, is_album, probes_for
from engines.training.samples import Sampler
from engines.training.schedules import rate_factor
from engines.training.text import KeptTexts, Texts, TextsReadAnew
from engines.training.unet import Denoiser
from engines.training.validation import LEVELS, Validation
from lora_registry.export import write_adapter
from lora_registry.weights import LowRank
from studio.domain.adapter import Layout, Part
from studio.domain.buckets import make_buckets, nearest_bucket
from studio.domain.errors import TrainingFailed
from studio.domain.run_events import Exported, Looked, Preparing, Settled
from studio.domain.run_files import EXPORTS, SAMPLES, control_name, sample_name
from studio.domain.training import SHOWN_PROMPTS, TrainingPlan

_EMA = 0.99
_SAVE_EVERY_S = 60.0
_BUCKET_STEP, _POCKET_BUCKET_STEP = 64, 32
"""Pixels: what the UNet's halvings can share out, and as kohya's scripts take them."""
_LEAST_PROBES, _STEPS_A_PROBE = 4, 5
"""A picture to be judged takes about as long as a step."""
_NO_OP_STEPS = 10
"""After so many, an adapter that changes nothing never will."""


class LoraTraining:
    """One run in `folder`, begun or gone on with. `items` are pictures and captions; what is made of them is kept in
    `cache`, for other runs, too."""

    def __init__(
        self,
        loaded: Loaded,
        plan: TrainingPlan,
        items: Sequence[tuple[Path, str]],
        folder: Path,
        cache: Path,
        control: Control,
        compute: Compute,
    ) -> None:
        self._loaded = loaded
        self._plan = plan
        self._items = [(path, with_trigger(caption, plan.trigger)) for path, caption in items]
        self._folder = folder
        self._cache = cache
        self._control = control
        self._pipeline = loaded.pipeline
        self._is_sdxl = loaded.checkpoint.family == "sdxl"
        self._schedule = NoiseSchedule.of(self._pipeline.scheduler.config)
        self._processes = compute.processes
        prepare_for_training(
            self._pipeline, is_pocket=loaded.checkpoint.is_pocket, is_checkpointed=compute.is_checkpointed
        )
        torch.manual_seed(plan.seed)
        self._adapter = AdapterInTraining(self._pipeline, plan, is_small=loaded.checkpoint.is_pocket)
        self._denoiser = Denoiser(unet=self._pipeline.unet, prediction_type=loaded.prediction_type, dtype=compute.dtype)
        anew = TextsReadAnew(self._pipeline, compute.dtype)
        # A miniature reads faster than a disk, and is asked for ever other words.
        fixed = anew if loaded.checkpoint.is_pocket else KeptTexts(self._pipeline, cache / "texts", loaded.sha256)
        self._texts: Texts = anew if self._adapter.changes_text else fixed
        self._objective = Denoising(
            schedule=self._schedule,
            prediction_type=loaded.prediction_type,
            snr_gamma=plan.snr_gamma,
            noise_offset=plan.noise_offset,
        )
        before = Before(denoiser=self._denoiser, adapter=self._adapter, texts=fixed, is_sdxl=self._is_sdxl)
        self._lessons = Lessons(plan, before, self._texts, self._objective, self._processes)
        step = _POCKET_BUCKET_STEP if loaded.checkpoint.is_pocket else _BUCKET_STEP
        least, most = max(step, plan.size // 2 // step * step), 2 * plan.size // step * step
        self._buckets = make_buckets(max_area=plan.size**2, min_side=least, max_side=most, step=step)
        self._pace = Pace(control, plan.num_steps, plan.batch_size * plan.accumulation)
        self._sampler = Sampler(
            denoiser=self._denoiser,
            texts=self._texts,
            vae=self._pipeline.vae,
            schedule=self._schedule,
            size=plan.size,
            guidance=plan.guidance_scale,
            is_sdxl=self._is_sdxl,
            at_once=POCKET_AT_ONCE if loaded.checkpoint.is_pocket else LARGE_AT_ONCE,
        )
        self._best = Best(folder)
        self._checkpoints = Checkpoints(folder)

    def run(self) -> None:
        """Go on to the end, then write the best adapter; see `export` for what a stop leaves.

        Raises:
            TrainingFailed: values ran over, or nothing is learnt.
            DatasetError: no picture can be used.
            OSError, StorageFailed: the folder cannot be written.
        """
        plan = self._plan
        self._refuse_small_batch()
        with self._processes.first_before_others():
            learnt, held_out = self._gathered()
            self._preserve()
        look = self._looker(learnt, held_out)
        trainee = self._trainee()
        trainee.resume()
        if self._best.look is None:
            look(0)
        try:
            self._train(trainee, learnt, look)
        except FloatingPointError as error:
            raise TrainingFailed(
                f"The numbers ran over: {error}.",
                f"Try a learning rate below {plan.learning_rate:g}; what was best before is kept.",
            ) from error
        finally:
            if not self._is_due(trainee.step):
                self._save(trainee)
        self.export()

    def export(self) -> None:
        """Write the best adapter so far in both layouts; nothing where none was looked at yet."""
        kept, look = self._best.factors(), self._best.look
        if kept is None or look is None or not self._processes.is_first:
            return
        factors = {
            cast(Part, part): {path: LowRank(**parts) for path, parts in changes.items()}
            for part, changes in kept.items()
        }
        for layout, name in EXPORTS.items():
            self._write(self._folder / name, factors, look.step, cast(Layout, layout), torch.float32)
        self._control.tell(Exported(step=look.step))

    def _write(
        self,
        path: Path,
        factors: Mapping[Part, Mapping[str, LowRank]],
        step: int,
        layout: Layout,
        dtype: torch.dtype,
    ) -> None:
        """Write the adapter as it was after `step`, with what it says of itself."""
        metadata = adapter_metadata(self._loaded, self._plan, step, [caption for _, caption in self._items])
        write_adapter(path, factors, self._loaded.checkpoint.family, layout, metadata, dtype=dtype)

    def _keep_checkpoint(self, step: int) -> None:
        """Keep the adapter as it is now, small, beside those of earlier looks."""
        factors, best = self._adapter.factors(), self._best.look
        self._checkpoints.keep(
            step,
            lambda path: self._write(path, factors, step, "peft", torch.float16),
            best=best and best.step,
        )

    def _gathered(self) -> tuple[list[TrainingPicture], list[TrainingPicture]]:
        """The pictures that are learnt from, and those that are held out."""
        masks = MaskStore(self._cache / "masks", self._plan.mask_floor) if self._plan.masked else None
        store = LatentStore(self._cache / "latents", self._pipeline.vae, self._loaded.sha256, masks)
        pictures = gather_pictures(
            store,
            self._items,
            self._size_of,
            self._control.check,
            self._tell_prepared,
        )
        order = np.random.default_rng([self._plan.seed, 5]).permutation(len(pictures))
        count = self._plan.model_copy(update={"num_pictures": len(pictures)}).num_held_out
        held_out = set(order[:count].tolist())
        parts: tuple[list[TrainingPicture], list[TrainingPicture]] = ([], [])
        for index, picture in enumerate(pictures):
            parts[index in held_out].append(picture)
        return parts

    def _preserve(self) -> None:
        """Draw of what the checkpoint knew, where that is to be preserved."""
        prompts = prior_prompts(self._plan.num_prior, self._plan.prior_prompts)
        with self._adapter.off():
            pictures = prior_pictures(
                self._sampler,
                prompts,
                self._cache / "prior",
                self._loaded.sha256,
                self._control.check,
                self._tell_prepared,
            )
        # As many rows as a guided call for samples has.
        self._lessons.preserve(pictures, ahead=max(1, 2 * self._sampler.at_once // self._plan.batch_size))

    def _tell_prepared(self, done: int, total: int) -> None:
        self._control.tell(Preparing(done=done, total=total))

    def _size_of(self, width: int, height: int) -> tuple[int, int]:
        """The size in which a picture is learnt from."""
        size = self._plan.size
        if self._plan.crop == "centre":
            return size, size
        bucket = nearest_bucket(width, height, self._buckets)
        return bucket.width, bucket.height

    def _train(self, trainee: Trainee, learnt: Sequence[TrainingPicture], look: Callable[[int], None]) -> None:
        """Go on to the end, or until nothing gets better."""
        for step in self._steps(trainee, learnt):
            if not self._is_due(step):
                continue
            with trainee.averaged():
                look(step)
            self._save(trainee)  # only now: what a kill cuts short is looked at again
            if self._is_settled(step):
                self._control.tell(Settled(step=step))
                return

    def _trainee(self) -> Trainee:
        plan = self._plan
        warmup = round(plan.warmup * plan.num_steps)
        training = Plan(
            name="lora",
            steps=plan.num_steps,
            learning_rate=plan.learning_rate,
            ema_decay=_EMA,
            seed=plan.seed,
            dtype=self._denoiser.dtype,
            factor_at=lambda step: rate_factor(plan.schedule, step, plan.num_steps, warmup),
        )
        optimizer = new_optimizer(plan.optimizer, self._adapter.groups())
        return Trainee(training, self._adapter.modules, self._folder, optimizer=optimizer)

    def _steps(self, trainee: Trainee, learnt: Sequence[TrainingPicture]) -> Iterator[int]:
        """Take step after step; yields how many are taken."""
        plan = self._plan
        sizes: dict[tuple[int, ...], list[int]] = {}
        for index, picture in enumerate(learnt):
            sizes.setdefault(tuple(picture.latents.shape), []).append(index)
        order = Order(list(sizes.values()), plan.batch_size, plan.seed)
        saved_at = time.monotonic()
        while trainee.step < plan.num_steps:
            self._control.check()
            self._pace.begin()
            step, loss = trainee.step, 0.0
            # Of dropout: a resumed run drops the same, and each process something else.
            torch.manual_seed(plan.seed * 1_000_003 + step + 1_000_000_007 * self._processes.index)
            for part in range(plan.accumulation):
                place = step * plan.accumulation + part
                loss += self._lessons.learn([learnt[index] for index in order.batch(place)], place, trainee.backward)
            self._processes.add_up(trainee.parameters)
            loss = self._processes.sum_of(loss)
            trainee.take_step()
            if trainee.num_updates == _NO_OP_STEPS and not self._adapter.has_learnt():
                raise TrainingFailed(
                    f"After {_NO_OP_STEPS} steps the adapter still changes nothing.", "Raise the learning rate."
                )
            self._pace.note(trainee.step, loss, plan.learning_rate * trainee.plan.factor(step))
            yield trainee.step
            if time.monotonic() - saved_at > _SAVE_EVERY_S:
                self._save(trainee)
                saved_at = time.monotonic()

    def _looker(self, learnt: Sequence[TrainingPicture], held_out: Sequence[TrainingPicture]) -> Callable[[int], None]:
        """Gives what looks at the adapter as it is after a step, and keeps it if it is the best so far."""
        plan, is_pocket = self._plan, self._loaded.checkpoint.is_pocket
        captions = [picture.caption for picture in (*held_out, *learnt)]
        probes = self._probes(captions) if is_pocket else ()
        shown = plan.sample_prompts or tuple(dict.fromkeys(captions))[:SHOWN_PROMPTS]
        sampler = self._sampler
        levels = LEVELS if is_pocket else 2 * sampler.at_once  # as many as guidance takes
        validation = Validation(self._objective, self._denoiser, held_out, self._lessons.told, levels)

        def look(step: int) -> None:
            if not self._processes.is_first:
                return
            started = time.monotonic()
            pictures = sampler.draw((*shown, *(each.prompt for each in probes)))
            for index, picture in enumerate(pictures[: len(shown)]):
                save_picture(picture, self._folder / SAMPLES / sample_name(step, 0, index))
                if step == 0:  # an adapter that has learnt nothing changes nothing
                    save_picture(picture, self._folder / SAMPLES / control_name(index))
            looked = Looked(
                step=step,
                prompts=shown,
                right=_num_right(probes, pictures[len(shown) :]) if probes else None,
                checked=len(probes),
                validation=validation.loss() if held_out else None,
            )
            if step:
                self._keep_checkpoint(step)  # before it is told: what is told of is there
            self._control.tell(looked)  # before it may be best: a kill between has it told again, and not forgotten
            self._best.offer(looked, self._factors)
            self._pace.look_s = time.monotonic() - started

        return look

    def _probes(self, captions: Sequence[str]) -> tuple[Probe, ...]:
        """What the model is tested with: fewer where looks are near each other, lest they take longer than the steps
        between."""
        paths = [path for path, _ in self._items]
        probes = probes_for(captions, self._plan.trigger, is_album=is_album(paths))
        count = min(len(probes), max(_LEAST_PROBES, self._plan.look_every // _STEPS_A_PROBE))
        return tuple(probes[index * len(probes) // count] for index in range(count))

    def _refuse_small_batch(self) -> None:
        """Raises TrainingFailed where a process would have nothing to learn from."""
        count, size = self._processes.count, self._plan.batch_size
        if size < count:
            raise TrainingFailed(
                f"{count} processes cannot share batches of {size}.",
                f"Take at least {count} pictures at once, and fewer batches a step.",
            )

    def _save(self, trainee: Trainee) -> None:
        if self._processes.is_first:
            trainee.save()

    def _is_due(self, step: int) -> bool:
        """Whether the adapter is looked at after so many steps."""
        return step % self._plan.look_every == 0 or step == self._plan.num_steps

    def _is_settled(self, step: int) -> bool:
        """Whether the look that measured best is so many looks old that nothing better is to be expected."""
        patience, best = self._plan.patience, self._best.peak
        return bool(
            self._processes.is_first and patience and best and step - best.step >= patience * self._plan.look_every
        )

    def _factors(self) -> dict[str, Any]:
        return {
            part: {path: vars(change) for path, change in changes.items()}
            for part, changes in self._adapter.factors().items()
        }


def _num_right(probes: Sequence[Probe], pictures: Sequence[Image.Image]) -> int:
    return sum(probe.is_right(picture) for probe, picture in zip(probes, pictures, strict=True))
