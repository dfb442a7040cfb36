"""Makes pictures with SD 1.5 pipelines: one picture at a time, watched at every step."""

import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engines.base import EngineState, Picture, Step
from engines.devices import cpu_threads
from engines.memory import PeakMemory
from engines.pool import Loaded, PipelinePool
from engines.previews import DenoisedWatch, preview_decoder
from engines.schedulers import build_scheduler
from engines.text import remembered_prompt
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.errors import GenerationFailed, JobCancelled
from studio.domain.request import ResolvedRequest


class StableDiffusionEngine:
    """An `Engine` over a pool of pipelines.

    Pictures are made singly: batched arithmetic rounds differently, and a picture must not depend on its neighbours.
    """

    def __init__(self, pool: PipelinePool, catalogue: Catalogue) -> None:
        self._pool = pool
        self._catalogue = catalogue

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
        *,
        cancelled: Callable[[], bool],
        on_step: Callable[[Step], None],
    ) -> Picture:
        """Make the one picture of a `single` recipe; see `engines.base.Engine.generate`."""
        checkpoint = self._catalogue.checkpoint(request.checkpoint)
        threads = 1 if checkpoint.is_pocket else None
        with self._pool.lease(checkpoint) as loaded, cpu_threads(threads), torch.inference_mode():
            row = self._catalogue.scheduler(request.scheduler)
            pipeline = loaded.pipeline
            pipeline.scheduler = build_scheduler(row, pipeline.scheduler.config, checkpoint.prediction_type)
            watch = _Watch(loaded, pipeline.scheduler, cancelled, on_step)
            if cancelled():
                raise JobCancelled
            image = _run(loaded, request, prompts, watch)
            return Picture(
                image=image,
                seconds=watch.seconds(),
                peak_memory_mb=watch.peak_memory_mb(),
                environment=_environment(loaded, str(pipeline.device)),
            )


class _Watch:
    """Follows one picture: time by phase, memory, cancellation, finiteness, and the caller's `on_step`."""

    def __init__(
        self,
        loaded: Loaded,
        scheduler: Any,
        cancelled: Callable[[], bool],
        on_step: Callable[[Step], None],
    ) -> None:
        self._cancelled = cancelled
        self._on_step = on_step
        self._denoised = DenoisedWatch(scheduler)
        self._decode_preview = preview_decoder(loaded.tiny_vae)
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
            raise GenerationFailed(
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


def _run(loaded: Loaded, request: ResolvedRequest, prompts: tuple[str, str], watch: _Watch) -> Image.Image:
    pipeline = loaded.pipeline
    try:
        with remembered_prompt(pipeline.unet):
            output = pipeline(
                prompt_embeds=loaded.prompts.embeds(pipeline, prompts[0]),
                negative_prompt_embeds=loaded.prompts.embeds(pipeline, prompts[1]) if request.uses_guidance else None,
                width=request.width,
                height=request.height,
                num_inference_steps=request.num_inference_steps,
                guidance_scale=request.guidance_scale,
                # Noise is drawn on the CPU on every device, so that a seed means the same picture everywhere.
                generator=torch.Generator("cpu").manual_seed(request.seed),
                output_type="np",
                callback_on_step_end=watch.after_step,
            )
    finally:
        watch.close()
    return _to_image(output.images[0])


def _to_image(pixels: np.ndarray) -> Image.Image:
    """Turn `(H, W, 3)` in [0, 1] into an image, rounding as diffusers does; refuse what is no picture."""
    if not np.isfinite(pixels).all():
        raise GenerationFailed("The decoder gave values that are not finite.", "Try float32, or another seed.")
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
