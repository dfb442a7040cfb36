"""A picture in the making, or several at once, watched: time by phase, memory, cancellation, finiteness, and the
caller's `on_step`."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from engines.base import Step
from engines.loading import Loaded
from engines.memory import PeakMemory
from engines.previews import DenoisedWatch, preview_decoder
from studio.domain.catalogue import Family
from studio.domain.errors import GenerationFailed, JobCancelled


class NotFinite(GenerationFailed):
    """Values ran over: in half precision float32 may help."""


class Watch:
    """Follows them from their prompts to their pixels."""

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
        self._before = self._done = self._later = 0
        self._memory = PeakMemory(loaded.device)
        self._hook = loaded.pipeline.unet.register_forward_pre_hook(self._note_first_step)

    def _note_first_step(self, *_: object) -> None:
        if self._first_step_at is None:
            self._first_step_at = time.perf_counter()
            self._hook.remove()

    def next_pass(self, later: int = 0) -> None:
        """The pipeline is going to be called once more; `later` steps come after that call."""
        self._before, self._later = self._done, later

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
        self._done = self._before + step_index + 1
        total = self._before + pipeline.num_timesteps + self._later
        for place in range(len(latents)):
            self._on_step(
                Step(step=self._done, total=total, preview=partial(self._preview, latents, place), place=place)
            )
        return {}

    def _preview(self, latents: Tensor, place: int) -> Image.Image:
        denoised = self._denoised.denoised()
        return self._decode_preview((latents if denoised is None else denoised)[place : place + 1])

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
