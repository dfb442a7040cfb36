"""A UNet that is steered by a ControlNet for as long as a picture is drawn, in whatever pipeline it stands."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel
from PIL import Image
from torch import Tensor

from engines.conditioning import remembered_prompt
from engines.forwards import instead_of_forward


def hint_of(image: Image.Image, control: ControlNetModel) -> Tensor:
    """A hint as a ControlNet reads it: `(1, 3, H, W)` in [0, 1]."""
    pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].to(control.device, control.dtype)


@contextmanager
def controlled(unet: Any, control: ControlNetModel, hint: Tensor, scale: float) -> Iterator[None]:
    """Add `scale` times what `control` makes of the `hint` `(1, 3, H, W)` at every call of `unet`, for both halves of
    guidance, as diffusers' own ControlNet pipelines do. The hint is eight times as large as the latents."""

    def steer(forward: Callable[..., Any]) -> Callable[..., Any]:
        def steered(sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, **kwargs: Any) -> Any:
            down, middle = control(
                sample.to(control.dtype),
                timestep,
                encoder_hidden_states.to(control.dtype),
                hint.expand(len(sample), -1, -1, -1),
                conditioning_scale=scale,
                added_cond_kwargs=kwargs.get("added_cond_kwargs"),
                return_dict=False,
            )
            return forward(
                sample,
                timestep,
                encoder_hidden_states,
                down_block_additional_residuals=[each.to(sample.dtype) for each in down],
                mid_block_additional_residual=middle.to(sample.dtype),
                **kwargs,
            )

        return steered

    with ExitStack() as stack:
        stack.enter_context(remembered_prompt(control))
        stack.enter_context(instead_of_forward(unet, steer))
        yield
