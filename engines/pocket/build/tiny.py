"""Train the tiny autoencoder: it decodes previews, and pictures of few steps, in a third of the VAE's time or less."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from engines.pocket.build.autoencoder import reconstruction_loss
from engines.pocket.build.decoder import noised_and_estimated
from engines.pocket.build.denoiser import Denoiser
from engines.pocket.build.latents import LatentSet
from engines.training.loop import Plan, Trainee, train

WIDTH = 16
"""Sixteen numbers of 32 bits fill a register of this kind of processor: 24 channels took three times as long."""
DECODER_BLOCKS = (4, 4, 2, 0)
"""From the coarsest level to the finest, where a block would cost as much as all the others together."""
POOL, BATCH = 4096, 8
READING_WEIGHT, READING_EVERY = 0.1, 4
"""The studio has no use for the encoder; other programs may."""


def new_tiny_autoencoder() -> AutoencoderTiny:
    """An AutoencoderTiny of factor 8 (the shape of Bohan's TAESD) that takes scaled latents."""
    return AutoencoderTiny(
        encoder_block_out_channels=(WIDTH,) * 4,
        decoder_block_out_channels=(WIDTH,) * 4,
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=DECODER_BLOCKS,
        latent_channels=4,
    )


Latents = Callable[[np.random.Generator], Tensor]
"""Draws a batch of scaled latents `(B, 4, h, w)`, as they are to be decoded."""


def train_tiny_autoencoder(
    tiny: AutoencoderTiny, vae: AutoencoderKL, sources: Sequence[Latents], work: Path, plan: Plan, pictures: int = POOL
) -> None:
    """Teach the decoder of `tiny` to draw what that of `vae` draws from `pictures` latents of the `sources`, taken in
    turn, and its encoder the way back; resumes.

    The VAE's pictures are what it is to come to, not the scenes: what a preview shows is what the picture will be,
    faults and all.
    """
    tiny.to(memory_format=torch.channels_last)
    trainee = Trainee(plan, {"tiny": tiny}, work, muon=_inner_kernels(tiny))
    trainee.resume()
    pool = list(_pairs(vae, sources, plan.seed, pictures)) if trainee.step < plan.steps else []

    def loss_at(step: int) -> Tensor:
        latents, wanted = pool[np.random.default_rng([plan.seed, 4, step]).integers(len(pool))]
        pixels = wanted.float().div(127.5).sub(1)
        loss = reconstruction_loss(tiny.decode(latents).sample, pixels)
        if step % READING_EVERY:
            return loss
        return loss + READING_WEIGHT * (tiny.encode(pixels).latents - latents).abs().mean()

    for _ in train(trainee, loss_at):
        pass
    trainee.use_averages()


def of_denoiser(denoiser: Denoiser, data: LatentSet) -> Latents:
    """Latents of scenes with a little noise, and as one guided step leaves them."""

    def latents(rng: np.random.Generator) -> Tensor:
        return noised_and_estimated(denoiser, data, rng.integers(len(data.scenes), size=BATCH), rng)

    return latents


def _inner_kernels(tiny: AutoencoderTiny) -> list[nn.Parameter]:
    """Those that take and give the same width: by Muon the loss after 700 steps was 0.099, by AdamW alone 0.156."""
    return [p for p in tiny.parameters() if p.ndim == 4 and p.shape[:2] == (WIDTH, WIDTH)]


@torch.no_grad()
def _pairs(vae: AutoencoderKL, sources: Sequence[Latents], seed: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of latents, and what the VAE makes of them, `(B, 3, H, W)` in [0, 255]."""
    for index in range(count // BATCH):
        latents = sources[index % len(sources)](np.random.default_rng([seed, 8, index]))
        decoded = vae.decode(latents / vae.config.scaling_factor).sample
        yield (
            latents.contiguous(memory_format=torch.channels_last),
            decoded.clamp(-1, 1).add(1).mul(127.5).round().byte().contiguous(memory_format=torch.channels_last),
        )
