"""A diffusers pipeline as the single file that other programs exchange: the names of Stability's own code."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
_OPEN_CLIP = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip
_OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def save_original(pipeline: Any, path: Path) -> None:
    """Write `pipeline` as a single-file checkpoint."""
    tensors = {f"model.diffusion_model.{unet_name(k, pipeline)}": v for k, v in pipeline.unet.state_dict().items()}
    depth = len(pipeline.vae.config.block_out_channels)
    tensors |= {f"first_stage_model.{vae_name(k, depth)}": v for k, v in pipeline.vae.state_dict().items()}
    tensors |= text_tensors(pipeline)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)


def unet_name(name: str, pipeline: Any) -> str:
    stem, _, leaf = name.rpartition(".")
    if stem in _UNET_ENDS:
        return f"{_UNET_ENDS[stem]}.{leaf}"
    if found := re.fullmatch(r"mid_block\.((?:resnets|attentions)\.\d)\.(.+)", name):
        return f"middle_block.{_MIDDLE[found[1]]}.{_inner(found[2])}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
    assert found, name
    side, block, kind, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    per_block = pipeline.unet.config.layers_per_block + 1
    if kind == "downsamplers":
        return f"input_blocks.{(block + 1) * per_block}.0.op.{leaf}"
    if kind == "upsamplers":
        slot = 2 if "CrossAttn" in pipeline.unet.config.up_block_types[block] else 1
        return f"output_blocks.{(block + 1) * per_block - 1}.{slot}.conv.{leaf}"
    index = block * per_block + layer + (side == "down")
    return f"{'input' if side == 'down' else 'output'}_blocks.{index}.{int(kind == 'attentions')}.{_inner(rest)}"


def vae_name(name: str, depth: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda found: f"up.{depth - 1 - int(found[1])}.block", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{depth - 1 - int(found[1])}.upsample", name)


def text_tensors(pipeline: Any) -> dict[str, Tensor]:
    first = pipeline.text_encoder.state_dict()
    if getattr(pipeline, "text_encoder_2", None) is not None:
        second = open_clip(pipeline.text_encoder_2.state_dict(), "conditioner.embedders.1.model.")
        return {**clip(first, "conditioner.embedders.0.transformer."), **second}
    if pipeline.unet.config.use_linear_projection:
        return open_clip(first, "cond_stage_model.model.")
    return clip(first, "cond_stage_model.transformer.")


def clip(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in state.items()}


def open_clip(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    plain = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    tensors = {}
    for name, tensor in plain.items():
        found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if name == "text_projection.weight":
            tensors[f"{prefix}text_projection"] = tensor.T
        elif found is None:
            tensors[prefix + _OPEN_CLIP_ENDS[name]] = tensor
        elif found[2] in _OPEN_CLIP:
            tensors[f"{prefix}transformer.resblocks.{found[1]}.{_OPEN_CLIP[found[2]]}.{found[3]}"] = tensor
        elif found[2] == "self_attn.q_proj":
            joined = torch.cat([plain[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"])
            tensors[f"{prefix}transformer.resblocks.{found[1]}.attn.in_proj_{found[3]}"] = joined
    return tensors


def _inner(name: str) -> str:
    head, _, rest = name.partition(".")
    return f"{_RESNET[head]}.{rest}" if head in _RESNET else name
