"""The work on one picture: the prompt read, the latents denoised, the pixels decoded."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from engines.attaching import AttachedAdapter, attached
from engines.conditioning import PromptCache, call_arguments, remembered_prompt
from engines.devices import cpu_threads, in_float32
from engines.loading import Loaded
from engines.memory import release_memory
from engines.parts import TINY_VAE_FOLDER
from engines.watch import NotFinite, Watch
from studio.domain.errors import GenerationFailed
from studio.domain.request import ResolvedRequest

logger = logging.getLogger(__name__)
_T = TypeVar("_T")
_HALF_THREADS = 2
"""For a miniature's decoder in half precision, whose few layers are large enough to share, unlike those of its UNet. As
many on every machine, since their number changes last bits."""


class Work:
    """One picture of a `single` recipe. `prompts` are the texts as run: (prompt, negative prompt); `timesteps` are
    where its sampler stops, None for the sampler's own.

    Values that are not finite in half precision are tried once more in float32, which reaches further. Latents that are
    finished are kept, so that a decoder which runs out of memory can be asked again under another plan.
    """

    def __init__(
        self, request: ResolvedRequest, prompts: tuple[str, str], timesteps: tuple[int, ...] | None = None
    ) -> None:
        self._request = request
        self._prompts = prompts
        self._timesteps = timesteps
        self._latents: Tensor | None = None
        self._retried: list[str] = []

    def pixels(self, loaded: Loaded, adapters: Sequence[AttachedAdapter], watch: Watch) -> np.ndarray:
        """The picture, `(H, W, 3)` in [0, 1].

        Raises:
            NotFinite: in float32 too.
            GenerationFailed: the tiny decoder is asked for, and there is none.
        """
        try:
            decoder = self._request.decoder
            tiny = tiny_of(loaded) if decoder == "tiny" else None
            if self._latents is None:
                self._latents = self._denoised(loaded, adapters, watch)
                if not loaded.checkpoint.is_pocket:
                    release_memory()  # else the decoder's peak comes on top of what the UNet left
            latents = self._latents
            if tiny is not None:
                return _drawn(loaded.pipeline, tiny.decode(latents.to(tiny.dtype)).sample)
            if decoder == "half" and loaded.half_vae is not None:
                with suppress(NotFinite):
                    return _in_half(loaded, loaded.half_vae, latents)
            return self._twice("VAE", loaded, (loaded.pipeline.vae,), lambda: _decoded(loaded.pipeline, latents))
        finally:
            watch.close()

    def remarks(self) -> dict[str, str]:
        """What was done otherwise than planned."""
        return {"float32_parts": ", ".join(self._retried)} if self._retried else {}

    def _denoised(self, loaded: Loaded, adapters: Sequence[AttachedAdapter], watch: Watch) -> Tensor:
        # What is kept of prompts was read without adapters, and in the checkpoint's own number format.
        cache = PromptCache() if any(adapter.changes_text for adapter in adapters) else loaded.prompts
        caches = iter((cache, PromptCache()))
        return self._twice(
            "UNet and text encoder",
            loaded,
            _readers(loaded.pipeline),
            lambda: self._denoise(loaded, adapters, next(caches), watch),
        )

    def _twice(self, name: str, loaded: Loaded, parts: Sequence[Any], work: Callable[[], _T]) -> _T:
        try:
            return work()
        except NotFinite as error:
            # Layer by layer, weights are not where they could be converted.
            if loaded.placement == "sequential_offload" or all(part.dtype == torch.float32 for part in parts):
                raise
            logger.warning("%s once more in float32: %s", name, error)
        self._retried.append(name)
        with in_float32(*parts):
            return work()

    def _denoise(self, loaded: Loaded, adapters: Sequence[AttachedAdapter], cache: PromptCache, watch: Watch) -> Tensor:
        request, pipeline = self._request, loaded.pipeline
        is_small = loaded.checkpoint.is_pocket and loaded.placement != "sequential_offload"
        changed = loaded.merged.in_place(pipeline, adapters) if is_small else attached(pipeline, adapters)
        with changed, remembered_prompt(pipeline.unet):
            prompt = cache.read(pipeline, self._prompts[0])
            negative = cache.read(pipeline, self._prompts[1], is_negative=True) if request.uses_guidance else None
            return pipeline(
                **call_arguments(prompt, negative),
                width=request.width,
                height=request.height,
                num_inference_steps=request.num_inference_steps,
                timesteps=self._timesteps and list(self._timesteps),
                guidance_scale=request.guidance_scale,
                # Noise is drawn on the CPU on every device, so that a seed means the same picture everywhere.
                generator=torch.Generator("cpu").manual_seed(request.seed),
                output_type="latent",
                callback_on_step_end=watch.after_step,
            ).images


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


def _pixels(vae: Any, latents: Tensor) -> Tensor:
    return vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample


def _drawn(pipeline: Any, pixels: Tensor) -> np.ndarray:
    if not torch.isfinite(pixels).all():
        raise NotFinite("The decoder gave values that are not finite.", "Try float32, or another seed.")
    return pipeline.image_processor.postprocess(pixels, output_type="np")[0]
