"""`python -m engines.pocket.build.few_step_decoder sd15`: teach the tiny decoder what few steps leave.

Half of what it learns from are the model's own pictures by its accelerator, the rest what it has seen before.
"""

import argparse
import logging
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, LCMScheduler
from torch import Tensor

from engines.parts import TINY_VAE_FOLDER
from engines.pocket.build.accelerator import WEIGHTS
from engines.pocket.build.assemble import forget_origin, load_parts
from engines.pocket.build.latents import cache_latents, scene_at
from engines.pocket.build.recipes import RECIPES
from engines.pocket.build.tiny import BATCH, POOL, Latents, new_tiny_autoencoder, of_denoiser, train_tiny_autoencoder
from engines.pocket.grammar import paraphrase
from engines.training.loop import Plan
from studio.domain.distillation import FEW_STEPS


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(prog="python -m engines.pocket.build.few_step_decoder", description=__doc__)
    parser.add_argument("family", nargs="?", choices=RECIPES, default="sd15")
    parser.add_argument("--work", type=Path, help="checkpoints go here (data/pocket-build/…)")
    parser.add_argument("--out", type=Path, help="the finished tiny_vae folder (that of the pocket model)")
    parser.add_argument("--start", type=Path, help="a tiny_vae folder to train further; else a new one")
    parser.add_argument("--pictures", type=int, default=POOL, help="that it learns from")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--scenes", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop saves, like Ctrl+C
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
    sources = [of_accelerator(pipeline, recipe.size_px, options.seed), of_denoiser(parts.denoiser, data)]
    plan = Plan(
        name="tiny", steps=options.steps, learning_rate=options.learning_rate, ema_decay=0.995, seed=options.seed
    )
    train_tiny_autoencoder(tiny, parts.vae, sources, work, plan, options.pictures)
    folder = options.out or WEIGHTS / recipe.id / TINY_VAE_FOLDER
    tiny.half().save_pretrained(folder)
    forget_origin(folder / "config.json")


def of_accelerator(pipeline: Any, size: int, seed: int) -> Latents:
    """Latents as few steps of a plain diffusers `pipeline` leave them, which has its accelerator loaded."""
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)

    def latents(rng: np.random.Generator) -> Tensor:
        scenes = [scene_at(seed, int(index)) for index in rng.integers(20_000, size=BATCH)]
        return pipeline(
            [paraphrase(scene, rng) for scene in scenes],
            width=size,
            height=size,
            num_inference_steps=int(rng.choice(FEW_STEPS)),
            guidance_scale=1.0,
            generator=torch.Generator().manual_seed(int(rng.integers(2**32))),
            output_type="latent",
        ).images

    return latents


if __name__ == "__main__":
    main()
