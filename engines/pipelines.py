"""The pipelines of diffusers, but for one thing: they do not look where they compute each time that they are asked."""

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline


class _Steady:
    """Looking takes diffusers through every module of every part, twice: 3 ms, beside a miniature's 120 for a picture
    in four steps. `known_device` is set where nothing moves."""

    known_device: torch.device | None = None

    @property
    def _execution_device(self) -> torch.device:
        return self.known_device or super()._execution_device  # pyright: ignore[reportAttributeAccessIssue]


class SteadyPipeline(_Steady, StableDiffusionPipeline):
    """That of SD 1.5 and 2.x."""


class SteadyXLPipeline(_Steady, StableDiffusionXLPipeline):
    """That of SDXL."""


PIPELINES = {"sd15": SteadyPipeline, "sd21": SteadyPipeline, "sdxl": SteadyXLPipeline}
