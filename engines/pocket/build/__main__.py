"""`python -m engines.pocket.build`: train pocket-sd15 from nothing, or go on where the last run was stopped.

Stages: text → vae → latents → unet → decoder → tiny → folder. Each keeps checkpoints in the work folder; a finished one
is skipped. Everything is drawn from the seed, so two runs on one machine make the same weights.
"""

import argparse
import logging
import signal
import time
from pathlib import Path

import torch
from diffusers import AutoencoderTiny

from engines.pocket.build.assemble import load_parts, save_pipeline
from engines.pocket.build.autoencoder import new_autoencoder, normalise_latents, train_autoencoder
from engines.pocket.build.decoder import Denoiser, train_decoder
from engines.pocket.build.denoiser import LatentSet, cache_latents, new_unet, train_denoiser
from engines.pocket.build.loop import Plan
from engines.pocket.build.text import build_tokenizer, pretrain_text_encoder
from engines.pocket.build.tiny import train_tiny_autoencoder
from engines.pool import TINY_VAE_FOLDER

logger = logging.getLogger(__name__)
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
SIZE_PX = 128


def main() -> None:
    """Run the stages from the command line."""
    parser = argparse.ArgumentParser(prog="python -m engines.pocket.build", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("data/pocket-build/pocket-sd15"), help="checkpoints go here")
    parser.add_argument("--out", type=Path, default=WEIGHTS / "pocket-sd15", help="the finished diffusers folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vae-steps", type=int, help="4500 from nothing; 0, as it is, with --start-from")
    parser.add_argument("--text-steps", type=int, default=1200)
    parser.add_argument("--scenes", type=int, default=32_000, help="scenes whose latents are cached")
    parser.add_argument("--unet-steps", type=int, default=7000)
    parser.add_argument("--decoder-steps", type=int, default=2000, help="0 leaves the decoder as it is")
    parser.add_argument("--tiny-steps", type=int, default=1500, help="0 keeps what --start-from has")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak rate of the UNet")
    parser.add_argument("--start-from", type=Path, help="a finished folder to train further; its text encoder stays")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop saves, like Ctrl+C
    build(options)


def build(options: argparse.Namespace) -> None:
    """Train every part that is not finished and write the folder."""
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    torch.manual_seed(options.seed)
    vae_steps = options.vae_steps
    if options.start_from:
        vae, unet, encoder, tokenizer = load_parts(options.start_from)
    else:
        vae, vae_steps = new_autoencoder(), 4500 if vae_steps is None else vae_steps
        tokenizer = build_tokenizer(work / "tokenizer")
        encoder = pretrain_text_encoder(tokenizer, work, options.text_steps, seed=options.seed)
        unet = new_unet(SIZE_PX // 8, encoder.config.hidden_size)
    if vae_steps:
        train_autoencoder(vae, work, vae_steps, options.seed)
        normalise_latents(vae)
    vae.eval().requires_grad_(False)
    data = cache_latents(vae, work / "latents.pt", options.scenes, SIZE_PX, options.seed)
    logger.info(
        "latents: %d, mean %.3f, spread %.3f",
        len(data.latents),
        data.latents.float().mean(),
        data.latents.float().std(),
    )
    plan = Plan(name="unet", steps=options.unet_steps, learning_rate=options.learning_rate, seed=options.seed)
    train_denoiser(unet, encoder, tokenizer, data, work, plan)
    if options.decoder_steps:
        denoiser = Denoiser(unet=unet, encoder=encoder, tokenizer=tokenizer)
        plan = Plan(name="decoder", steps=options.decoder_steps, learning_rate=7e-4, ema_decay=0.995, seed=options.seed)
        train_decoder(vae, denoiser, data, work, plan, SIZE_PX)
    tiny = _tiny_autoencoder(options, data)
    save_pipeline(options.out, vae, unet, encoder, tokenizer, tiny)
    logger.info("%s is ready after %.0f min of this run", options.out, (time.monotonic() - started) / 60)


def _tiny_autoencoder(options: argparse.Namespace, data: LatentSet) -> AutoencoderTiny | None:
    if options.tiny_steps:
        return train_tiny_autoencoder(data, options.work, options.tiny_steps, SIZE_PX)
    kept = options.start_from and options.start_from / TINY_VAE_FOLDER
    return AutoencoderTiny.from_pretrained(kept) if kept else None


if __name__ == "__main__":
    main()
