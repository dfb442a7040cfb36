"""`python -m engines.pocket.build.few_step_decoder sd15`: teach the tiny decoder what few steps leave.

Half of what it learns from are the model's own pictures by its accelerator, the rest what it has seen before.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, LCMScheduler
from torch import Tensor

from engines.parts import TINY_VAE_FOLDER
from engines.pocket.build.accelerator import WEIGHTS
from engines.pocket.build.assemble import forget_origin, load_parts
from engines.pocket.build.latents import LatentSet, cache_latents
from engines.pocket.build.recipes import RECIPES
from engines.pocket.build.starting import new_parser, started
from engines.pocket.build.tiny import BATCH, POOL, Latents, new_tiny_autoencoder, of_denoiser, train_tiny_autoencoder
from engines.pocket.grammar import paraphrase
from engines.training.loop import Plan
from studio.domain.distillation import FEW_STEPS


def main() -> None:
    """Train from the command line."""
    parser = new_parser("engines.pocket.build.few_step_decoder", __doc__)
    parser.add_argument("--out", type=Path, help="the finished tiny_vae folder (that of the pocket model)")
    parser.add_argument("--start", type=Path, help="a tiny_vae folder to train further; else a new one")
    parser.add_argument("--pictures", type=int, default=POOL, help="that it learns from")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--scenes", type=int, default=20_000)
    options = started(parser)
    build(options)


def build(options: argparse.Namespace) -> None:
    """Train as `options` say and write the folder."""
    recipe = RECIPES[options.family]
    work = options.work or Path("data/pocket-build") / f"{recipe.id}-decoder"
    work.mkdir(parents=True, exist_ok=True)
    parts = load_parts(WEIGHTS / recipe.id, recipe)
    parts.vae.eval().requires_grad_(False)
    data = cache_latents(
        parts.vae, work / "latents.pt", options.scenes, recipe.size_px, options.seed, is_framed=recipe.is_sdxl
    )
    torch.manual_seed(options.seed)
    tiny = AutoencoderTiny.from_pretrained(options.start) if options.start else new_tiny_autoencoder()
    pipeline = DiffusionPipeline.from_pretrained(WEIGHTS / recipe.id, dtype=torch.float32)
    pipeline.load_lora_weights(WEIGHTS / "accelerators" / f"flash-{recipe.id}.safetensors")
    sources = [of_accelerator(pipeline, data), of_denoiser(parts.denoiser, data)]
    plan = Plan(
        name="tiny", steps=options.steps, learning_rate=options.learning_rate, ema_decay=0.995, seed=options.seed
    )
    train_tiny_autoencoder(tiny, parts.vae, sources, work, plan, options.pictures)
    folder = options.out or WEIGHTS / recipe.id / TINY_VAE_FOLDER
    tiny.half().save_pretrained(folder)
    forget_origin(folder / "config.json")


def of_accelerator(pipeline: Any, data: LatentSet) -> Latents:
    """Latents of the scenes of `data` as few steps of a plain diffusers `pipeline` with an accelerator leave them."""
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)

    def latents(rng: np.random.Generator) -> Tensor:
        scenes = [data.scenes[index] for index in rng.integers(len(data.scenes), size=BATCH)]
        return pipeline(
            [paraphrase(scene, rng) for scene in scenes],
            width=data.size,
            height=data.size,
            num_inference_steps=int(rng.choice(FEW_STEPS)),
            guidance_scale=1.0,
            generator=torch.Generator().manual_seed(int(rng.integers(2**32))),
            output_type="latent",
        ).images

    return latents


if __name__ == "__main__":
    main()
