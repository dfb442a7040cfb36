"""What saves memory while a picture is made, switched on for that picture only."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from engines.attention import attending
from engines.footprint import CELL_PX, TILE_PX
from engines.forwards import Forward, instead_of_forward
from studio.domain.memory import MemoryPlan


@contextmanager
def relieved(pipeline: Any, plan: MemoryPlan) -> Iterator[None]:
    """Let `pipeline` work as `plan` says, and as before afterwards."""
    with ExitStack() as stack:
        stack.enter_context(attending(pipeline.unet, plan.attention, is_sliced=plan.is_sliced))
        if plan.is_halved:
            stack.enter_context(instead_of_forward(pipeline.unet, in_halves))
        if plan.is_tiled:
            stack.enter_context(in_tiles(pipeline.vae))
        yield


@contextmanager
def in_tiles(vae: Any) -> Iterator[None]:
    """Let `vae` decode in overlapping tiles of `TILE_PX`."""
    before = vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size
    vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size = True, TILE_PX, TILE_PX // CELL_PX
    try:
        yield
    finally:
        vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size = before


def in_halves(forward: Forward) -> Forward:
    """The `forward` of a UNet, the pictures of a batch one after the other: half the memory for the work on two."""

    def halved(sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        if len(sample) == 1:
            return forward(sample, timestep, encoder_hidden_states, *args, **kwargs)
        added = kwargs.pop("added_cond_kwargs", None)
        outputs = []
        for index in range(len(sample)):
            row = slice(index, index + 1)
            if added is not None:
                kwargs["added_cond_kwargs"] = {name: told[row] for name, told in added.items()}
            output = forward(sample[row], timestep, encoder_hidden_states[row], *args, **kwargs)
            outputs.append(output[0])
        return (torch.cat(outputs),)

    return halved
