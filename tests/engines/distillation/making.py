"""A UNet of each family with an adapter in training, and batches for it."""

import torch
from torch import Tensor

from engines.conditioning import Conditioning
from engines.distillation.unet_pair import UnetPair
from engines.pocket.build.recipes import RECIPES
from engines.training.lora import TrainableLora, reached
from engines.training.unet import Told


def pair_of(family: str, rank: int = 4) -> UnetPair:
    torch.manual_seed(0)
    recipe = RECIPES[family]
    unet = recipe.new_unet().requires_grad_(False)
    for parameter in unet.parameters():  # its branches begin at zero, and so would every prediction
        parameter.data += 0.02 * torch.randn(parameter.shape)
    lora = TrainableLora(unet, reached(unet, "attention"), rank, rank)
    return UnetPair(unet=unet, lora=lora, prediction_type=recipe.prediction_type)


def batch(family: str, step: int = 0, count: int = 2) -> tuple[Tensor, Told]:
    generator = torch.Generator().manual_seed(step)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    width = sum(encoder.width for encoder in RECIPES[family].encoders)
    pooled = RECIPES[family].encoders[-1].width if family == "sdxl" else 0
    told = Told(
        prompt=Conditioning(embeds=normal(count, 8, width), pooled=normal(count, pooled) if pooled else None),
        negative=Conditioning(embeds=normal(1, 8, width), pooled=normal(1, pooled) if pooled else None),
        time_ids=torch.tensor([[192.0, 192, 0, 0, 192, 192]] * count) if pooled else None,
    )
    return normal(count, 4, 8, 8), told
