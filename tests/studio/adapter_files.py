"""A small adapter for the pocket models."""

from pathlib import Path

import torch
from safetensors.torch import save_file

MODULE = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


def adapter_file(path: Path, width: int = 128, scale: float = 1, metadata: dict[str, str] | None = None) -> Path:
    """A kohya file for models whose text is `width` wide; another `scale` makes other weights."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"lora_unet_{MODULE}.lora_down.weight": torch.randn(2, width, generator=generator),
        f"lora_unet_{MODULE}.lora_up.weight": scale * torch.randn(128, 2, generator=generator),
        f"lora_unet_{MODULE}.alpha": torch.tensor(2.0),
    }
    save_file(tensors, path, metadata)
    return path
