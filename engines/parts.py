"""The parts of a checkpoint that have weights, and what each must be. Needs no torch before a class is asked for."""

import importlib
from typing import Any

PART_CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
}
"""By the folder that they lie in, in the order in which their weights are hashed; all but the last are in every
checkpoint."""
OPTIONAL_PARTS = ("text_encoder_2",)
CONTROL_WEIGHTS = "diffusion_pytorch_model.safetensors"
CONTROL_FILES = (CONTROL_WEIGHTS, "config.json")
"""What a folder of a ControlNet holds, as diffusers keeps one."""
TINY_VAE_FOLDER = "tiny_vae"
"""The decoder for previews, where a folder has one."""


def class_named(name: str) -> Any:
    """One of the classes of `PART_CLASSES`."""
    return getattr(importlib.import_module("transformers" if name.startswith("CLIP") else "diffusers"), name)
