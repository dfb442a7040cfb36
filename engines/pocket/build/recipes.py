"""What sets the pocket models apart, as data; everything else about building them is shared."""

from dataclasses import dataclass
from typing import Literal

from diffusers import UNet2DConditionModel
from torch import nn

from engines.pocket.build.text import EncoderPlan


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One pocket model. Latents are scaled to unit variance by its own `scaling_factor`."""

    family: Literal["sd15", "sd21", "sdxl"]
    size_px: int
    prediction_type: Literal["epsilon", "v_prediction"]
    scaling_factor: float
    encoders: tuple[EncoderPlan, ...]
    deepest_width: int
    """Channels of the coarsest level, which holds most of the parameters: 192, 160 and 128 learnt the same in a trial
    of 150 steps (loss 0.0353, 0.0354, 0.0357), and all models together are to stay below 80 MB."""

    @property
    def id(self) -> str:
        return f"pocket-{self.family}"

    @property
    def is_sdxl(self) -> bool:
        """Two text encoders, a pooled embedding and micro-conditioning."""
        return self.family == "sdxl"

    def new_unet(self) -> UNet2DConditionModel:
        """A UNet of three levels (16, 8 and 4 cells a side at 128 px) with attention in the two coarser ones.

        Objects are two cells wide and more at 8 × 8, which is where words are bound to places; the finest level only
        draws edges, and attention there would double the cost of a step.
        """
        unet = UNet2DConditionModel(
            sample_size=self.size_px // 8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(64, 128, self.deepest_width),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=sum(encoder.width for encoder in self.encoders),
            attention_head_dim=4,
            norm_num_groups=16,
            **self._of_the_family(),
        )
        _zero_outputs(unet)
        return unet

    def _of_the_family(self) -> dict[str, object]:
        if self.family == "sd15":
            return {}
        common: dict[str, object] = {"use_linear_projection": True, "upcast_attention": self.family == "sd21"}
        if self.is_sdxl:
            pooled = self.encoders[-1].width
            common |= {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": TIME_ID_WIDTH,
                "projection_class_embeddings_input_dim": 6 * TIME_ID_WIDTH + pooled,
                "transformer_layers_per_block": (1, 1, 2),
            }
        return common


TIME_ID_WIDTH = 16
"""Width of the sinusoid of each of SDXL's six micro-conditions (256 in the large model)."""

RECIPES = {
    recipe.family: recipe
    for recipe in (
        Recipe(
            family="sd15",
            size_px=128,
            prediction_type="epsilon",
            scaling_factor=0.18215,
            encoders=(EncoderPlan(name="text_encoder", width=128, layers=4),),
            deepest_width=192,
        ),
        Recipe(
            family="sd21",
            size_px=160,
            prediction_type="v_prediction",
            scaling_factor=0.18215,
            encoders=(EncoderPlan(name="text_encoder", width=128, layers=5, drops_last=True),),
            deepest_width=160,
        ),
        Recipe(
            family="sdxl",
            size_px=192,
            prediction_type="epsilon",
            scaling_factor=0.13025,
            encoders=(
                EncoderPlan(name="text_encoder", width=128, layers=5, reads_penultimate=True),
                EncoderPlan(name="text_encoder_2", width=96, layers=5, reads_penultimate=True, has_projection=True),
            ),
            deepest_width=128,
        ),
    )
}


def _zero_outputs(unet: UNet2DConditionModel) -> None:
    """Begin every residual branch at zero, so that a high learning rate is stable from the first step."""
    last = [unet.conv_out]
    for name, module in unet.named_modules():
        if name.endswith((".conv2", ".proj_out")):
            last.append(module)
    for module in last:
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
