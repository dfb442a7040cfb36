"""Makes pictures with Stable Diffusion pipelines: one picture at a time, watched at every step.

The families differ in what a prompt becomes (`conditioning`) and in data; the rest is the same for all.
"""

import logging
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engines.adapters import AdapterShelf, AttachedAdapter, attached
from engines.base import ChosenAdapter, EngineState, OnFetch, Picture, Step, unheard
from engines.conditioning import PromptCache, call_arguments, remembered_prompt
from engines.devices import cpu_threads, in_float32
from engines.loading import Loaded
from engines.memory import PeakMemory
from engines.pool import PipelinePool
from engines.previews import DenoisedWatch, preview_decoder
from engines.schedulers import build_scheduler
from studio.domain.catalogue import Catalogue, Checkpoint, Family
from studio.domain.errors import GenerationFailed, JobCancelled
from studio.domain.request import ResolvedRequest

logger = logging.getLogger(__name__)
_T = TypeVar("_T")


class NotFinite(GenerationFailed):
    """Values ran over: in half precision float32 may help."""


class StableDiffusionEngine:
    """An `Engine` over a pool of pipelines.

    Pictures are made singly: batched arithmetic rounds differently, and a picture must not depend on its neighbours.
    """

    def __init__(self, pool: PipelinePool, catalogue: Catalogue) -> None:
        self._pool = pool
        self._catalogue = catalogue
        self._shelf = AdapterShelf()

    def state(self) -> EngineState:
        """See `engines.base.Engine.state`."""
        return self._pool.state()

    def preload(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint ahead of the first request."""
        with self._pool.lease(checkpoint):
            pass

    def generate(
        self,
        request: ResolvedRequest,
        prompts: tuple[str, str],
        adapters: Sequence[ChosenAdapter] = (),
        *,
        cancelled: Callable[[], bool],
        on_step: Callable[[Step], None],
        on_fetch: OnFetch = unheard,
    ) -> Picture:
        """Make the one picture of a `single` recipe; see `engines.base.Engine.generate`."""
        checkpoint = self._catalogue.checkpoint(request.checkpoint)
        threads = 1 if checkpoint.is_pocket else None
        lease = self._pool.lease(checkpoint, cancelled, on_fetch)
        with lease as loaded, cpu_threads(threads), torch.inference_mode():
            row = self._catalogue.scheduler(request.scheduler)
            pipeline = loaded.pipeline
            pipeline.scheduler = build_scheduler(row, pipeline.scheduler.config, loaded.prediction_type)
            family = self._catalogue.family(checkpoint.family)
            watch = _Watch(loaded, family, cancelled, on_step)
            if cancelled():
                raise JobCancelled
            work = _Work(loaded, request, prompts, self._shelf.take(adapters, loaded), watch)
            return Picture(
                image=_to_image(work.pixels()),
                seconds=watch.seconds(),
                peak_memory_mb=watch.peak_memory_mb(),
                environment=_environment(loaded, str(pipeline.device)) | work.remarks(),
            )


class _Watch:
    """Follows one picture: time by phase, memory, cancellation, finiteness, and the caller's `on_step`."""

    def __init__(
        self,
        loaded: Loaded,
        family: Family,
        cancelled: Callable[[], bool],
        on_step: Callable[[Step], None],
    ) -> None:
        self._cancelled = cancelled
        self._on_step = on_step
        self._denoised = DenoisedWatch(loaded.pipeline.scheduler)
        self._decode_preview = preview_decoder(loaded.tiny_vae, family)
        self._started = time.perf_counter()
        self._first_step_at: float | None = None
        self._last_step_at = self._started
        self._memory = PeakMemory(loaded.pipeline.device)
        self._hook = loaded.pipeline.unet.register_forward_pre_hook(self._note_first_step)

    def _note_first_step(self, *_: object) -> None:
        if self._first_step_at is None:
            self._first_step_at = time.perf_counter()
            self._hook.remove()

    def after_step(
        self, pipeline: Any, step_index: int, timestep: Any, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Diffusers' `callback_on_step_end`."""
        if self._cancelled():
            raise JobCancelled
        latents = tensors["latents"]
        if not torch.isfinite(latents).all():
            raise NotFinite(
                f"The picture broke at step {step_index + 1}: values are no longer finite.",
                "Try another sampler, a lower guidance scale, or float32.",
            )
        self._last_step_at = time.perf_counter()
        self._memory.note()
        # Not what was asked for: Heun calls the model twice a step, and diffusers counts the calls.
        total = pipeline.num_timesteps
        self._on_step(Step(step=step_index + 1, total=total, preview=lambda: self._preview(latents)))
        return {}

    def _preview(self, latents: Tensor) -> Image.Image:
        denoised = self._denoised.denoised()
        return self._decode_preview(latents if denoised is None else denoised)

    def close(self) -> None:
        self._hook.remove()

    def peak_memory_mb(self) -> float:
        return self._memory.megabytes()

    def seconds(self) -> dict[str, float]:
        """Seconds by phase, up to now."""
        now = time.perf_counter()
        first = self._first_step_at or self._started
        phases = {
            "text": first - self._started,
            "denoise": self._last_step_at - first,
            "decode": now - self._last_step_at,
            "total": now - self._started,
        }
        return {name: round(value, 4) for name, value in phases.items()}


class _Work:
    """One picture: the prompt read, the latents denoised, the pixels decoded. Values that are not finite in half
    precision are tried once more in float32, which reaches further."""

    def __init__(
        self,
        loaded: Loaded,
        request: ResolvedRequest,
        prompts: tuple[str, str],
        adapters: Sequence[AttachedAdapter],
        watch: _Watch,
    ) -> None:
        self._loaded = loaded
        self._request = request
        self._prompts = prompts
        self._adapters = adapters
        self._watch = watch
        # What is kept of prompts was read without adapters.
        self._cache = PromptCache() if any(adapter.changes_text for adapter in adapters) else loaded.prompts
        self._retried: list[str] = []

    def pixels(self) -> np.ndarray:
        """The picture, `(H, W, 3)` in [0, 1].

        Raises:
            NotFinite: in float32 too.
        """
        try:
            latents = self._twice("UNet and text encoder", self._readers(), self._denoise)
            return self._twice("VAE", (self._loaded.pipeline.vae,), lambda: self._decode(latents))
        finally:
            self._watch.close()

    def remarks(self) -> dict[str, str]:
        """What was done otherwise than planned."""
        return {"float32_parts": ", ".join(self._retried)} if self._retried else {}

    def _twice(self, name: str, parts: Sequence[Any], work: Callable[[], _T]) -> _T:
        try:
            return work()
        except NotFinite as error:
            if all(part.dtype == torch.float32 for part in parts):
                raise
            logger.warning("%s once more in float32: %s", name, error)
        self._retried.append(name)
        self._cache = PromptCache()
        with in_float32(*parts):
            return work()

    def _readers(self) -> tuple[Any, ...]:
        pipeline = self._loaded.pipeline
        second = getattr(pipeline, "text_encoder_2", None)
        return (pipeline.unet, pipeline.text_encoder) + (() if second is None else (second,))

    def _denoise(self) -> Tensor:
        pipeline, request = self._loaded.pipeline, self._request
        with attached(pipeline, self._adapters), remembered_prompt(pipeline.unet):
            prompt = self._cache.read(pipeline, self._prompts[0])
            is_guided = request.uses_guidance
            negative = self._cache.read(pipeline, self._prompts[1], is_negative=True) if is_guided else None
            return pipeline(
                **call_arguments(prompt, negative),
                width=request.width,
                height=request.height,
                num_inference_steps=request.num_inference_steps,
                guidance_scale=request.guidance_scale,
                # Noise is drawn on the CPU on every device, so that a seed means the same picture everywhere.
                generator=torch.Generator("cpu").manual_seed(request.seed),
                output_type="latent",
                callback_on_step_end=self._watch.after_step,
            ).images

    def _decode(self, latents: Tensor) -> np.ndarray:
        pipeline = self._loaded.pipeline
        vae = pipeline.vae
        pixels = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        if not torch.isfinite(pixels).all():
            raise NotFinite("The decoder gave values that are not finite.", "Try float32, or another seed.")
        return pipeline.image_processor.postprocess(pixels, output_type="np")[0]


def _to_image(pixels: np.ndarray) -> Image.Image:
    """Turn `(H, W, 3)` in [0, 1] into an image, rounding as diffusers does; refuse what is no picture."""
    if pixels.max() == 0:
        raise GenerationFailed("The picture came out entirely black.", "Try float32, another sampler or another seed.")
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def _environment(loaded: Loaded, device: str) -> dict[str, str]:
    return {
        "device": device,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "checkpoint_sha256": loaded.sha256,
        "torch": version("torch"),
        "diffusers": version("diffusers"),
        "transformers": version("transformers"),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }
