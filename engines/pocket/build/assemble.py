"""Put trained parts together as a standard diffusers folder whose files are all below 10 MB."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer

from engines.pocket.build.denoiser import training_scheduler
from engines.pool import TINY_VAE_FOLDER

MAX_SHARD = "9MB"


def save_pipeline(
    folder: Path,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    tiny_vae: AutoencoderTiny | None = None,
) -> None:
    """Write the parts to `folder` in float16, sharded; files of the model card are kept."""
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=DPMSolverMultistepScheduler.from_config(training_scheduler().config, use_karras_sigmas=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    # Training asked it for padded ids; the file is to say nothing of that.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    pipeline.save_pretrained(part, safe_serialization=True, max_shard_size=MAX_SHARD)
    # Programs with an older tokenizer library read these two instead of tokenizer.json.
    tokenizer.backend_tokenizer.model.save(str(part / "tokenizer"))
    if tiny_vae is not None:
        tiny_vae.half().save_pretrained(part / TINY_VAE_FOLDER)
    for config in part.glob("*/config.json"):
        _forget_origin(config)
    for path in part.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors writes files that only their owner can read
    for kept in folder.glob("*.md"):
        shutil.copy2(kept, part / kept.name)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _forget_origin(config: Path) -> None:
    """Take out the folder that a part was once loaded from: it means nothing elsewhere."""
    values = json.loads(config.read_text(encoding="utf-8"))
    if values.pop("_name_or_path", None) is not None:
        config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_parts(folder: Path) -> tuple[AutoencoderKL, UNet2DConditionModel, CLIPTextModel, CLIPTokenizer]:
    """The four parts of a pocket folder in float32, to train them further."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)
    return pipeline.vae, pipeline.unet, pipeline.text_encoder, pipeline.tokenizer
