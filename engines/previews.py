"""Pictures of a picture in the making: estimate x₀ after each step and decode it cheaply."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from torch import Tensor

from studio.domain.catalogue import Family


class DenoisedWatch:
    """Remembers the x₀ estimate of a scheduler's last step, by wrapping `scheduler.step`."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._last: tuple[Tensor, Any, Tensor, int | None] | None = None
        scheduler.step = self._watched(scheduler.step)

    def denoised(self) -> Tensor | None:
        """The estimate `(B, 4, H/8, W/8)` of the clean latents, or None before the first step."""
        if self._last is None:
            return None
        return estimate_denoised(self._scheduler, *self._last)

    def _watched(self, step: Callable[..., Any]) -> Callable[..., Any]:
        # `wraps` keeps the signature: pipelines hand their generator to a step that names one, and to no other.
        @wraps(step)
        def watched(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            result = step(model_output, timestep, sample, *args, **kwargs)
            index = getattr(self._scheduler, "step_index", None)
            self._last = (model_output, timestep, sample, None if index is None else index - 1)
            return result

        return watched


def estimate_denoised(
    scheduler: Any, model_output: Tensor, timestep: Any, sample: Tensor, step_index: int | None
) -> Tensor:
    """x₀ from one model output, for ε-, v- and sample-prediction, in sigma space or in variance-preserving space.

    With x = α·x₀ + σ·ε and α² + σ² = 1: x₀ = (x - σ·ε) / α, or x₀ = α·x - σ·v (Salimans & Ho, 2022).
    """
    if scheduler.config.prediction_type == "sample":
        return model_output
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and step_index is not None:
        ratio = float(sigmas[min(max(step_index, 0), len(sigmas) - 1)])
        alpha = (1 + ratio**2) ** -0.5
        # Euler and its kin carry x / α; the others carry x itself.
        in_sigma_space = float(scheduler.init_noise_sigma) > 1.001
        sample = sample * alpha if in_sigma_space else sample
    else:
        alpha = float(scheduler.alphas_cumprod[int(timestep)]) ** 0.5
    sigma = (1 - alpha**2) ** 0.5
    if scheduler.config.prediction_type == "v_prediction":
        return alpha * sample - sigma * model_output
    return (sample - sigma * model_output) / max(alpha, 1e-4)


def preview_decoder(tiny_vae: AutoencoderTiny | None, family: Family) -> Callable[[Tensor], Image.Image]:
    """A function from latents `(1, 4, h, w)` to a small picture: by the tiny decoder, else by the linear map of
    `family`."""

    def decode(latents: Tensor) -> Image.Image:
        with torch.inference_mode():
            if tiny_vae is not None:
                pixels = tiny_vae.decode(latents.to(tiny_vae.dtype)).sample[0]
            else:
                rows = (family.latent_rgb, family.latent_rgb_bias)
                linear, bias = (torch.tensor(numbers, device=latents.device) for numbers in rows)
                pixels = torch.einsum("chw,cr->rhw", latents[0].float(), linear) + bias[:, None, None]
            array = pixels.float().clamp(-1, 1).add(1).mul(127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        image = Image.fromarray(np.ascontiguousarray(array))
        return (
            image
            if tiny_vae is not None
            else image.resize((image.width * 4, image.height * 4), Image.Resampling.BILINEAR)
        )

    return decode
