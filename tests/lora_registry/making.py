"""Adapters made for tests: one random LoRA, written in every layout, and the models that it fits."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from studio.domain.adapter import AdapterTarget, FamilyId, Part

RANK, ALPHA = 4, 16.0

UNET_NAMES = {
    "down_blocks.0.attentions.0.proj_in": "input_blocks.1.1.proj_in",
    "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0": (
        "input_blocks.2.1.transformer_blocks.0.attn1.to_out.0"
    ),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": "input_blocks.1.1.transformer_blocks.0.attn2.to_k",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj": "middle_block.1.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_v": "output_blocks.5.1.transformer_blocks.0.attn2.to_v",
    "down_blocks.0.resnets.1.conv1": "input_blocks.2.0.in_layers.2",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
}
"""Modules of the tiny UNet, as LDM calls them."""
TEXT_NAMES = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.1.self_attn.out_proj", "encoder.layers.1.mlp.fc1")
ATTENTION = tuple(path for path in UNET_NAMES if ".attn" in path)


@dataclass(frozen=True)
class Factors:
    part: Part
    path: str
    down: Tensor
    up: Tensor

    @property
    def delta(self) -> Tensor:
        """ΔW by the definition, in the shape of a convolution."""
        flat = self.up.flatten(1).double() @ self.down.flatten(1).double() * (ALPHA / self.down.shape[0])
        return flat.reshape(self.up.shape[0], *self.down.shape[1:]).float()


@cache
def tiny_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=8,
        norm_num_groups=8,
    )


@cache
def tiny_text_encoder() -> CLIPTextModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return CLIPTextModel(CLIPTextConfig(vocab_size=50, eos_token_id=49, bos_token_id=48, pad_token_id=49, **sizes))


@cache
def tiny_target() -> AdapterTarget:
    modules: dict[Part, Mapping[str, tuple[int, ...]]] = {
        "unet": weight_shapes(tiny_unet()),
        "text_encoder": weight_shapes(tiny_text_encoder()),
    }
    return AdapterTarget(title="Tiny SD", family="sd15", modules=modules)


@cache
def real_target(family: FamilyId) -> AdapterTarget:
    """A full-size model of a family: shapes, no memory."""
    sizes = {
        "sd15": {"cross_attention_dim": 768},
        "sd21": {"cross_attention_dim": 1024, "use_linear_projection": True},
        "sdxl": {
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    }[family]
    width = 1024 if family == "sd21" else 768
    with torch.device("meta"):
        unet = UNet2DConditionModel(**sizes)
        text = CLIPTextModel(_clip(width))
        second = CLIPTextModelWithProjection(_clip(1280)) if family == "sdxl" else None
    modules: dict[Part, Mapping[str, tuple[int, ...]]] = {
        "unet": weight_shapes(unet),
        "text_encoder": weight_shapes(text),
    }
    if second is not None:
        modules["text_encoder_2"] = weight_shapes(second)
    return AdapterTarget(title=f"Real {family}", family=family, modules=modules)


def _clip(width: int) -> CLIPTextConfig:
    return CLIPTextConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2, num_attention_heads=8)


def weight_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    kinds = (nn.Linear, nn.Conv2d)
    return {name: tuple(module.weight.shape) for name, module in model.named_modules() if isinstance(module, kinds)}


def random_factors(target: AdapterTarget, part: Part, paths: Iterable[str], rank: int = RANK) -> list[Factors]:
    made = []
    for path in paths:
        shape = shape_of(target, part, path)
        down, up = torch.randn(rank, *shape[1:]), torch.randn(shape[0], rank, *(1 for _ in shape[2:]))
        made.append(Factors(part, path, down, up))
    return made


def tiny_factors(*, convs: bool = True) -> list[Factors]:
    """A LoRA for the tiny models, with a kernel of 3×3 here and there."""
    torch.manual_seed(1)
    unet = random_factors(tiny_target(), "unet", UNET_NAMES if convs else ATTENTION)
    return unet + random_factors(tiny_target(), "text_encoder", TEXT_NAMES)


def shape_of(target: AdapterTarget, part: Part, path: str) -> tuple[int, ...]:
    shapes = target.modules[part]
    return shapes[path] if path in shapes else shapes[f"text_model.{path}"]


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    save_file(
        {name: tensor.clone().contiguous() for name, tensor in tensors.items()},
        path,
        dict(metadata) if metadata else None,
    )
    return path


KOHYA_PARTS: Mapping[Part, str] = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}


def kohya_name(part: Part, path: str) -> str:
    path = path if part == "unet" or path.startswith("text_model.") else f"text_model.{path}"
    return f"{KOHYA_PARTS[part]}_{path.replace('.', '_')}"


def as_kohya(factors: Iterable[Factors], alpha: float | None = ALPHA) -> dict[str, Tensor]:
    tensors = {}
    for one in factors:
        name = kohya_name(one.part, one.path)
        tensors |= {f"{name}.lora_down.weight": one.down, f"{name}.lora_up.weight": one.up}
        tensors |= {} if alpha is None else {f"{name}.alpha": torch.tensor(alpha)}
    return tensors


def as_ldm_kohya(factors: Iterable[Factors]) -> dict[str, Tensor]:
    renamed = (Factors(one.part, UNET_NAMES.get(one.path, one.path), one.down, one.up) for one in factors)
    return as_kohya(renamed)


def as_diffusers(factors: Iterable[Factors]) -> dict[str, Tensor]:
    tensors = {}
    for one in factors:
        infix = "lora" if one.part == "unet" else "lora_linear_layer"
        prefix = f"{one.part}.{one.path}" if one.part == "unet" else f"{one.part}.text_model.{one.path}"
        tensors |= {f"{prefix}.{infix}.down.weight": one.down, f"{prefix}.{infix}.up.weight": one.up}
    return tensors


def as_old_diffusers(factors: Iterable[Factors]) -> dict[str, Tensor]:
    """As diffusers wrote attention processors until 2023, with no part named for the UNet."""
    tensors = {}
    for one in factors:
        block, _, projection = one.path.removesuffix(".0").rpartition(".")
        projection = f"to_{projection.removesuffix('_proj')}" if one.part == "text_encoder" else projection
        prefix = f"{block}.processor.{projection}_lora"
        prefix = f"text_encoder.text_model.{block}.{projection}_lora" if one.part == "text_encoder" else prefix
        tensors |= {f"{prefix}.down.weight": one.down, f"{prefix}.up.weight": one.up}
    return tensors


def as_peft(factors: Iterable[Factors], prefix: str = "") -> dict[str, Tensor]:
    tensors = {}
    for one in factors:
        name = f"{prefix}{one.part}.{one.path}"
        tensors |= {f"{name}.lora_A.weight": one.down, f"{name}.lora_B.weight": one.up}
    return tensors


def peft_metadata(**settings: object) -> dict[str, str]:
    """What diffusers writes beside tensors without alphas."""
    own = {"r": RANK, "lora_alpha": ALPHA, **settings}
    flat: dict[str, object] = {"unet.target_modules": list(UNET_NAMES), "text_encoder.target_modules": list(TEXT_NAMES)}
    flat |= {f"{part}.{key}": value for part in ("unet", "text_encoder") for key, value in own.items()}
    return {"lora_adapter_metadata": json.dumps(flat)}
