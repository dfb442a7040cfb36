"""What saves memory while a picture is made, switched on for that picture only."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from engines.attention import attending
from engines.footprint import CELL_PX, TILE_PX
from studio.domain.memory import MemoryPlan


@contextmanager
def relieved(pipeline: Any, plan: MemoryPlan) -> Iterator[None]:
    """Let `pipeline` work as `plan` says, and as before afterwards."""
    with ExitStack() as stack:
        if plan.is_sliced or plan.attention != "fused":
            stack.enter_context(attending(pipeline.unet, plan.attention, is_sliced=plan.is_sliced))
        if plan.is_halved:
            stack.enter_context(in_halves(pipeline.unet))
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


@contextmanager
def in_halves(unet: Any) -> Iterator[None]:
    """Let `unet` see the pictures of a batch one after the other: half the memory for the work on two."""
    own = vars(unet).get("forward")  # offloading sets one; else the class's own serves
    forward = unet.forward

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

    unet.forward = halved
    try:
        yield
    finally:
        del unet.forward
        if own is not None:
            unet.forward = own
