"""Put trained parts together as a standard diffusers folder of files below 10 MB, and take them out again."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from engines.parts import TINY_VAE_FOLDER
from engines.pocket.build.denoiser import Denoiser, training_scheduler
from engines.pocket.build.recipes import Recipe
from engines.pocket.build.text import Reader

MAX_SHARD = "9MB"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What makes a pocket model, in float32 while it is trained."""

    recipe: Recipe
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    reader: Reader

    @property
    def denoiser(self) -> Denoiser:
        return Denoiser(unet=self.unet, reader=self.reader, prediction_type=self.recipe.prediction_type)


def save_pipeline(folder: Path, parts: Parts, tiny_vae: AutoencoderTiny | None = None) -> None:
    """Write the parts to `folder` in float16, sharded; files of the model card are kept."""
    pipeline = _pipeline_of(parts)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    # Training asked it for padded ids; the files are to say nothing of that.
    backend = parts.reader.tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    pipeline.save_pretrained(part, safe_serialization=True, max_shard_size=MAX_SHARD)
    for tokenizer in part.glob("tokenizer*"):
        # Programs with an older tokenizer library read these two instead of tokenizer.json.
        backend.model.save(str(tokenizer))
    if tiny_vae is not None:
        tiny_vae.half().save_pretrained(part / TINY_VAE_FOLDER)
    for config in part.glob("*/config.json"):
        forget_origin(config)
    for path in part.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors writes files that only their owner can read
    for kept in folder.glob("*.md"):
        shutil.copy2(kept, part / kept.name)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def load_parts(folder: Path, recipe: Recipe) -> Parts:
    """The parts of a pocket folder of that family in float32, to train them further."""
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    encoders = tuple(getattr(pipeline, plan.name).eval().requires_grad_(False) for plan in recipe.encoders)
    reader = Reader(tokenizer=pipeline.tokenizer, encoders=encoders, is_sdxl=recipe.is_sdxl)
    return Parts(recipe=recipe, vae=pipeline.vae, unet=pipeline.unet, reader=reader)


def _pipeline_of(parts: Parts) -> DiffusionPipeline:
    recipe, tokenizer = parts.recipe, parts.reader.tokenizer
    config = training_scheduler(recipe.prediction_type).config
    encoders = {plan.name: encoder.half() for plan, encoder in zip(recipe.encoders, parts.reader.encoders, strict=True)}
    common = {
        "vae": parts.vae.half(),
        "unet": parts.unet.half(),
        "tokenizer": tokenizer,
        "scheduler": DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True),
        **encoders,
    }
    if recipe.is_sdxl:
        return StableDiffusionXLPipeline(
            **common, tokenizer_2=tokenizer, force_zeros_for_empty_prompt=False, add_watermarker=False
        )
    return StableDiffusionPipeline(**common, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def forget_origin(config: Path) -> None:
    """Take out the folder that a part was once loaded from: it means nothing elsewhere."""
    values = json.loads(config.read_text(encoding="utf-8"))
    if values.pop("_name_or_path", None) is not None:
        config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
