"""`python -m engines.pocket.build sd21`: train a pocket model, or go on where the last run was stopped.

Stages: text → vae → latents → unet → decoder → tiny → folder. Each keeps checkpoints in the work folder; a finished one
is skipped. Everything is drawn from the seed, so two runs on one machine make the same weights.
"""

import argparse
import logging
import time
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DiffusionPipeline

from engines.devices import DTYPES, choose_device
from engines.parts import TINY_VAE_FOLDER
from engines.pocket.build.assemble import Parts, load_parts, save_pipeline
from engines.pocket.build.autoencoder import new_autoencoder, normalise_latents, train_autoencoder
from engines.pocket.build.borrowing import borrow_unet
from engines.pocket.build.decoder import train_decoder
from engines.pocket.build.denoiser import train_denoiser
from engines.pocket.build.latents import LatentSet, cache_latents
from engines.pocket.build.recipes import RECIPES, Recipe
from engines.pocket.build.starting import new_parser, started
from engines.pocket.build.text import Reader, build_tokenizer, pretrain_text_encoder
from engines.pocket.build.tiny import new_tiny_autoencoder, of_denoiser, train_tiny_autoencoder
from engines.training.loop import Plan

logger = logging.getLogger(__name__)
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
VAE_STEPS = 4500


def main() -> None:
    """Run the stages from the command line."""
    parser = new_parser("engines.pocket.build", __doc__)
    parser.add_argument("--out", type=Path, help="the finished diffusers folder (engines/pocket/weights/…)")
    parser.add_argument("--vae-steps", type=int, help=f"{VAE_STEPS} from nothing; 0, as it is, where there is one")
    parser.add_argument("--text-steps", type=int, default=1200)
    parser.add_argument("--scenes", type=int, default=32_000, help="scenes whose latents are cached")
    parser.add_argument("--unet-steps", type=int, default=7000)
    parser.add_argument("--decoder-steps", type=int, default=2000, help="0 leaves the decoder as it is")
    parser.add_argument("--tiny-steps", type=int, default=4000, help="0 keeps what --start-from has")
    parser.add_argument("--batch-size", type=int, default=32, help="latents per step of the UNet")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak rate of the UNet")
    parser.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="of the UNet's matrix products")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--start-from", type=Path, help="a folder of this family to train further; its encoders stay")
    start.add_argument("--borrow-from", type=Path, help="a folder of another family: its VAE and what fits of the rest")
    options = started(parser)
    build(RECIPES[options.family], options)


def build(recipe: Recipe, options: argparse.Namespace) -> None:
    """Train every part that is not finished and write the folder."""
    work: Path = options.work or Path("data/pocket-build") / recipe.id
    out: Path = options.out or WEIGHTS / recipe.id
    work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    parts = begin(recipe, work, options)
    is_new = options.start_from is None and options.borrow_from is None
    vae_steps = VAE_STEPS * is_new if options.vae_steps is None else options.vae_steps
    if vae_steps:
        train_autoencoder(parts.vae, work, vae_steps, options.seed, recipe.size_px)
    if vae_steps or options.start_from is None:
        normalise_latents(parts.vae, size=recipe.size_px)
    parts.vae.eval().requires_grad_(False)
    data = cache_latents(
        parts.vae, work / "latents.pt", options.scenes, recipe.size_px, options.seed, is_framed=recipe.is_sdxl
    )
    spread = data.latents.float()
    logger.info("latents: %d, mean %.3f, spread %.3f", len(spread), spread.mean(), spread.std())
    plan = Plan(
        name="unet",
        steps=options.unet_steps,
        learning_rate=options.learning_rate,
        seed=options.seed,
        dtype=choose_device("cpu", options.dtype).dtype,
    )
    logger.info("the UNet computes in %s", plan.dtype)
    train_denoiser(parts.denoiser, data, work, plan, options.batch_size)
    if options.decoder_steps:
        plan = Plan(name="decoder", steps=options.decoder_steps, learning_rate=7e-4, ema_decay=0.995, seed=options.seed)
        train_decoder(parts.vae, parts.denoiser, data, work, plan)
    tiny = _tiny_autoencoder(options, parts, data, work)
    save_pipeline(out, parts, tiny)
    logger.info("%s is ready after %.0f min of this run", out, (time.monotonic() - started) / 60)


def begin(recipe: Recipe, work: Path, options: argparse.Namespace) -> Parts:
    """The parts as training finds them: of a finished folder, or new with encoders that can read."""
    if options.start_from:
        return load_parts(options.start_from, recipe)
    torch.manual_seed(options.seed)
    vae, unet = new_autoencoder(recipe.size_px, recipe.scaling_factor), recipe.new_unet()
    lender = options.borrow_from and DiffusionPipeline.from_pretrained(options.borrow_from, dtype=torch.float32)
    if lender:
        vae.load_state_dict(lender.vae.state_dict())
        logger.info("%.0f %% of the UNet comes from %s", 100 * borrow_unet(unet, lender.unet), options.borrow_from)
    tokenizer = lender.tokenizer if lender else build_tokenizer(work / "tokenizer")
    encoders = []
    for plan in recipe.encoders:
        known = getattr(lender, plan.name, None)
        encoder = pretrain_text_encoder(tokenizer, plan, work, options.text_steps, reader=known, seed=options.seed)
        encoders.append(encoder.eval().requires_grad_(False))
    reader = Reader(tokenizer=tokenizer, encoders=tuple(encoders), is_sdxl=recipe.is_sdxl)
    return Parts(recipe=recipe, vae=vae, unet=unet, reader=reader)


def _tiny_autoencoder(options: argparse.Namespace, parts: Parts, data: LatentSet, work: Path) -> AutoencoderTiny | None:
    if options.tiny_steps:
        plan = Plan(name="tiny", steps=options.tiny_steps, learning_rate=5e-3, ema_decay=0.995, seed=options.seed)
        torch.manual_seed(options.seed)
        tiny = new_tiny_autoencoder()
        train_tiny_autoencoder(tiny, parts.vae, [of_denoiser(parts.denoiser, data)], work, plan)
        return tiny
    kept = options.start_from and options.start_from / TINY_VAE_FOLDER
    return AutoencoderTiny.from_pretrained(kept) if kept else None


if __name__ == "__main__":
    main()
