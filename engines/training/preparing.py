"""A pipeline made ready to have an adapter trained beside it."""

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor

from engines.training.processes import Processes
from engines.training.reach import TEXT_PARTS


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What a training computes with: `dtype` is that of matrix products; what is trained is float32. `is_checkpointed`:
    what lies between blocks alone is kept for the backward pass, and the rest computed again, to the same numbers
    (Chen et al., 2016, arXiv:1604.06174); that takes less memory, and a third more time."""

    dtype: torch.dtype = torch.float32
    is_checkpointed: bool = False
    processes: Processes = field(default_factory=Processes)


def prepare_for_training(pipeline: Any, *, is_pocket: bool, is_checkpointed: bool) -> None:
    """Freeze every part, and have its UNet compute as backward passes like it; see `Compute`."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    unet = pipeline.unet
    if is_pocket:  # on a CPU the backward of fused attention takes more than half of a step
        unet.set_attn_processor(AttnProcessor())
        for part in TEXT_PARTS:
            if (encoder := getattr(pipeline, part, None)) is not None:
                encoder.set_attn_implementation("eager")
    if is_checkpointed:
        unet.enable_gradient_checkpointing()
        unet.train()  # what diffusers asks for it; there is no dropout in it
