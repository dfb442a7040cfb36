"""What a UNet predicts, ε or v, measured: single files rarely say, and some say it wrong."""

from typing import Any

import torch
from torch import Tensor

from engines.placement import execution_device
from studio.domain.catalogue import PredictionType

EPSILON_CORRELATION = 0.8
"""At the last timestep a latent is all noise. An ε-model gives that noise back (0.99 measured); a v-model gives minus
the picture that it expects, which hardly knows of it (below 0.2)."""


@torch.inference_mode()
def measure_prediction_type(pipeline: Any) -> PredictionType:
    """Whether a loaded UNet predicts ε or v, by what it makes of pure noise at the last timestep."""
    unet, device = pipeline.unet, execution_device(pipeline)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).to(device, unet.dtype)
    embeds = torch.zeros(1, 77, unet.config.cross_attention_dim, device=device, dtype=unet.dtype)
    predicted = unet(noise, 999, embeds, added_cond_kwargs=_added(unet, device)).sample
    return "epsilon" if _correlation(predicted.float(), noise.float()) > EPSILON_CORRELATION else "v_prediction"


def _added(unet: Any, device: torch.device) -> dict[str, Tensor] | None:
    if unet.config.addition_embed_type != "text_time":
        return None
    pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    options = {"device": device, "dtype": unet.dtype}
    return {"text_embeds": torch.zeros(1, pooled, **options), "time_ids": torch.zeros(1, 6, **options)}


def _correlation(one: Tensor, other: Tensor) -> float:
    stacked = torch.stack([one.flatten(), other.flatten()])
    return float(torch.corrcoef(stacked)[0, 1])
