"""The work on a picture, or on several at once: the prompts read, the latents denoised, the pixels decoded."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from torch import Tensor

from engines.attaching import AttachedAdapter, attached
from engines.base import Order, Start
from engines.conditioning import (
    Conditioning,
    PromptCache,
    call_arguments,
    evened,
    joined,
    read_meant,
    remembered_prompt,
)
from engines.continuing import Continuation, calls
from engines.controlling import controlled, hint_of
from engines.devices import cpu_threads, in_float32
from engines.loading import Loaded
from engines.masking import changing_cells, composed
from engines.memory import release_memory
from engines.parts import TINY_VAE_FOLDER
from engines.watch import NotFinite, Watch
from studio.domain.errors import GenerationFailed

logger = logging.getLogger(__name__)
_T = TypeVar("_T")
_HALF_THREADS = 2
"""For a miniature's decoder in half precision, whose few layers are large enough to share, unlike those of its UNet. As
many on every machine, since their number changes last bits."""


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """One call of the pipeline: how large, in how many steps, and from what, None for noise alone."""

    width: int
    height: int
    steps: int
    begins: Continuation | None


class Work:
    """A picture, or several that differ in their words and seeds alone. `timesteps` are where their sampler stops, None
    for the sampler's own; `start` is what a picture by itself begins from.

    Values that are not finite in half precision are tried once more in float32, which reaches further. Latents that are
    finished are kept, so that a decoder which runs out of memory can be asked again under another plan.
    """

    def __init__(
        self,
        orders: Sequence[Order],
        timesteps: tuple[int, ...] | None = None,
        start: Start | None = None,
    ) -> None:
        request = orders[0].request
        assert bool(start and start.image) == bool(request.init_image), "a recipe and its pictures come together"
        assert len(orders) == 1 or (start is None and not request.has_hires), "what is made by itself"
        self._orders = tuple(orders)
        self._request = request
        self._timesteps = timesteps
        self._start = start
        self._first: Tensor | None = None
        self._latents: Tensor | None = None
        self._retried: list[str] = []

    def pixels(self, loaded: Loaded, adapters: Sequence[AttachedAdapter], watch: Watch) -> list[np.ndarray]:
        """Each picture, `(H, W, 3)` in [0, 1].

        Raises:
            NotFinite: in float32 too.
            GenerationFailed: the tiny decoder is asked for, and there is none.
        """
        try:
            tiny = tiny_of(loaded) if self._request.decoder == "tiny" else None
            if self._latents is None:
                self._latents = self._finished(loaded, adapters, watch)
                if not loaded.checkpoint.is_pocket:
                    release_memory()  # else the decoder's peak comes on top of what the UNet left
            return [self._decoded(loaded, tiny, latents) for latents in self._latents.split(1)]
        finally:
            watch.close()

    def _decoded(self, loaded: Loaded, tiny: AutoencoderTiny | None, latents: Tensor) -> np.ndarray:
        if tiny is not None:
            return _drawn(loaded.pipeline, tiny.decode(latents.to(tiny.dtype)).sample)
        if self._request.decoder == "half" and loaded.half_vae is not None:
            with suppress(NotFinite):
                return _in_half(loaded, loaded.half_vae, latents)
        return self._twice("VAE", loaded, (loaded.pipeline.vae,), lambda: _decoded(loaded.pipeline, latents))

    def composed(self, image: Image.Image) -> Image.Image:
        """The finished picture, `image` where it may change and every pixel of what it began from elsewhere."""
        if self._start is None or self._start.mask is None or self._start.image is None:
            return image
        return composed(self._start.image, image, self._start.mask, self._request.mask_blur)

    def remarks(self) -> dict[str, str]:
        """What was done otherwise than planned."""
        return {"float32_parts": ", ".join(self._retried)} if self._retried else {}

    def _finished(self, loaded: Loaded, adapters: Sequence[AttachedAdapter], watch: Watch) -> Tensor:
        """The latents after one pass, or after two."""
        request = self._request
        if self._first is None:
            watch.next_pass(later=self._second_pass_steps(loaded))
            begins = self._beginning(loaded)
            each = _Pass(width=request.width, height=request.height, steps=request.num_inference_steps, begins=begins)
            self._first = self._denoised(loaded, adapters, watch, each)
        if not request.has_hires:
            return self._first
        watch.next_pass()
        width, height = request.final_size
        larger = self._enlarged(loaded, self._first, width, height)
        begins = Continuation(larger, request.hires_steps - request.hires_steps_run)
        each = _Pass(width=width, height=height, steps=request.hires_steps, begins=begins)
        return self._denoised(loaded, adapters, watch, each)

    def _second_pass_steps(self, loaded: Loaded) -> int:
        request, scheduler = self._request, loaded.pipeline.scheduler
        if not request.has_hires:
            return 0
        return calls(scheduler, request.hires_steps, self._timesteps, request.hires_steps - request.hires_steps_run)

    def _beginning(self, loaded: Loaded) -> Continuation | None:
        start = self._start
        if start is None or start.image is None:
            return None
        changing = None if start.mask is None else changing_cells(start.mask)
        skipped = self._request.num_inference_steps - self._request.steps_run
        return Continuation(self._encoded(loaded, start.image), skipped, changing)

    def _steered(self, loaded: Loaded, each: _Pass) -> AbstractContextManager[None]:
        steering = self._start and self._start.steering
        if steering is None:
            return nullcontext()
        control = loaded.controls.take(steering.path)
        hint = steering.hint.resize((each.width, each.height), Image.Resampling.BILINEAR)
        return controlled(loaded.pipeline.unet, control, hint_of(hint, control), steering.scale)

    def _enlarged(self, loaded: Loaded, latents: Tensor, width: int, height: int) -> Tensor:
        """Scaled latents of a picture, those of a picture of `width` × `height` px."""
        if self._request.hires_upscaler == "latent":
            factor = loaded.pipeline.vae_scale_factor
            size = (height // factor, width // factor)
            return torch.nn.functional.interpolate(latents.float(), size, mode="bicubic").to(latents.dtype)
        vae = (loaded.pipeline.vae,)
        pixels = self._twice("VAE", loaded, vae, lambda: _decoded(loaded.pipeline, latents))
        image = Image.fromarray((pixels * 255).round().astype(np.uint8))
        return self._encoded(loaded, image.resize((width, height), Image.Resampling.LANCZOS))

    def _encoded(self, loaded: Loaded, image: Image.Image) -> Tensor:
        """The scaled latents of `image`, without chance: the middle of what the encoder thinks possible."""
        return self._twice("VAE", loaded, (loaded.pipeline.vae,), lambda: _encoded(loaded.pipeline, image))

    def _denoised(self, loaded: Loaded, adapters: Sequence[AttachedAdapter], watch: Watch, each: _Pass) -> Tensor:
        # What is kept of prompts was read without adapters, and in the checkpoint's own number format.
        cache = PromptCache(read=read_meant) if any(adapter.changes_text for adapter in adapters) else loaded.prompts
        caches = iter((cache, PromptCache(read=read_meant)))
        return self._twice(
            "UNet and text encoder",
            loaded,
            _readers(loaded.pipeline),
            lambda: self._denoise(loaded, adapters, next(caches), watch, each),
        )

    def _twice(self, name: str, loaded: Loaded, parts: Sequence[Any], work: Callable[[], _T]) -> _T:
        try:
            return work()
        except NotFinite as error:
            # Layer by layer, weights are not where they could be converted.
            if loaded.placement == "sequential_offload" or all(part.dtype == torch.float32 for part in parts):
                raise
            logger.warning("%s once more in float32: %s", name, error)
        self._retried += [] if name in self._retried else [name]
        with in_float32(*parts):
            return work()

    def _denoise(
        self, loaded: Loaded, adapters: Sequence[AttachedAdapter], cache: PromptCache, watch: Watch, each: _Pass
    ) -> Tensor:
        request, pipeline = self._request, loaded.pipeline
        is_small = loaded.checkpoint.is_pocket and loaded.placement != "sequential_offload"
        changed = loaded.merged.in_place(pipeline, adapters) if is_small else attached(pipeline, adapters)
        begun = each.begins.entered(pipeline) if each.begins else nullcontext()
        with self._steered(loaded, each), changed, remembered_prompt(pipeline.unet), begun:
            return pipeline(
                **call_arguments(*self._read(pipeline, cache)),
                width=each.width,
                height=each.height,
                num_inference_steps=each.steps,
                timesteps=self._timesteps and list(self._timesteps),
                guidance_scale=request.guidance_scale,
                # Noise is drawn on the CPU on every device, so that a seed means the same picture everywhere.
                generator=self._noise(),
                output_type="latent",
                callback_on_step_end=_after_step(watch, each.begins),
            ).images

    def _read(self, pipeline: Any, cache: PromptCache) -> tuple[Conditioning, Conditioning | None]:
        """What the UNet is told of all prompts together, and of the negative ones while guidance is on."""
        skip, read = self._request.clip_skip, []
        for order in self._orders:
            prompt = cache.read(pipeline, order.prompts[0], clip_skip=skip)
            negative = None
            if self._request.uses_guidance:
                negative = cache.read(pipeline, order.prompts[1], is_negative=True, clip_skip=skip)
            read.append(evened(prompt, negative, lambda: cache.read(pipeline, "", clip_skip=skip)))
        if len(read) == 1:
            return read[0]
        if len({prompt.embeds.shape for prompt, _ in read}) > 1:
            raise GenerationFailed("These prompts are of different lengths and cannot be drawn at once.", "Draw each.")
        negatives = [negative for _, negative in read if negative is not None]
        return joined([prompt for prompt, _ in read]), joined(negatives) if negatives else None

    def _noise(self) -> torch.Generator | list[torch.Generator]:
        made = [torch.Generator("cpu").manual_seed(order.request.seed) for order in self._orders]
        return made[0] if len(made) == 1 else made


def _after_step(watch: Watch, begins: Continuation | None) -> Callable[..., dict[str, Tensor]]:
    """Diffusers' `callback_on_step_end`: watched, then what is to be kept put back."""

    def after_step(pipeline: Any, step_index: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        told = watch.after_step(pipeline, step_index, timestep, tensors)
        if begins is None:
            return told
        return {**told, "latents": begins.after_step(pipeline.scheduler, step_index, tensors["latents"])}

    return after_step


def tiny_of(loaded: Loaded) -> AutoencoderTiny:
    """Its tiny decoder, which takes scaled latents; raises GenerationFailed where it has none."""
    if loaded.tiny_vae is None:
        raise GenerationFailed(
            f"{loaded.checkpoint.title} has no tiny decoder.",
            f"Choose the full one, or put a TAESD of its family into its folder as {TINY_VAE_FOLDER}.",
        )
    return loaded.tiny_vae


def _readers(pipeline: Any) -> tuple[Any, ...]:
    second = getattr(pipeline, "text_encoder_2", None)
    return (pipeline.unet, pipeline.text_encoder) + (() if second is None else (second,))


def _in_half(loaded: Loaded, half: Any, latents: Tensor) -> np.ndarray:
    half.use_tiling = loaded.pipeline.vae.use_tiling
    with cpu_threads(_HALF_THREADS if loaded.checkpoint.is_pocket else None):
        pixels = _pixels(half, latents).float()
    return _drawn(loaded.pipeline, pixels)


def _decoded(pipeline: Any, latents: Tensor) -> np.ndarray:
    return _drawn(pipeline, _pixels(pipeline.vae, latents))


def _encoded(pipeline: Any, image: Image.Image) -> Tensor:
    vae = pipeline.vae
    pixels = pipeline.image_processor.preprocess(image).to(pipeline._execution_device, vae.dtype)
    latents = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
    if not torch.isfinite(latents).all():
        raise NotFinite("The encoder gave values that are not finite.", "Try float32, or another picture.")
    return latents


def _pixels(vae: Any, latents: Tensor) -> Tensor:
    return vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample


def _drawn(pipeline: Any, pixels: Tensor) -> np.ndarray:
    if not torch.isfinite(pixels).all():
        raise NotFinite("The decoder gave values that are not finite.", "Try float32, or another seed.")
    return pipeline.image_processor.postprocess(pixels, output_type="np")[0]
