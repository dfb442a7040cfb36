"""The pipelines of diffusers, but for two things: they do not look where they compute each time that they are asked,
and they can begin from a picture."""

from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from engines.continuing import Continuation


class _Steady:
    """Looking takes diffusers through every module of every part, twice: 3 ms, beside a miniature's 120 for a picture
    in four steps. `known_device` is set where nothing moves."""

    known_device: torch.device | None = None
    continuation: Continuation | None = None

    @property
    def _execution_device(self) -> torch.device:
        return self.known_device or super()._execution_device  # pyright: ignore[reportAttributeAccessIssue]

    def prepare_latents(
        self, batch_size: int, channels: int, height: int, width: int, dtype: torch.dtype, *others: Any
    ) -> torch.Tensor:
        """The latents before the first step: diffusers' own, or those of `continuation`."""
        device, generator, *_ = others
        if self.continuation is not None:
            return self.continuation.noised(self.scheduler, dtype, device, generator)  # pyright: ignore[reportAttributeAccessIssue]
        return super().prepare_latents(batch_size, channels, height, width, dtype, *others)  # pyright: ignore[reportAttributeAccessIssue]


class SteadyPipeline(_Steady, StableDiffusionPipeline):
    """That of SD 1.5 and 2.x."""


class SteadyXLPipeline(_Steady, StableDiffusionXLPipeline):
    """That of SDXL."""


PIPELINES = {"sd15": SteadyPipeline, "sd21": SteadyPipeline, "sdxl": SteadyXLPipeline}
