"""Train the tiny autoencoder that shows previews: the VAE's latents, decoded in a few milliseconds."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from engines.pocket.build.latents import LatentSet
from engines.training.loop import Plan, Trainee, train


def new_tiny_autoencoder() -> AutoencoderTiny:
    """An AutoencoderTiny of factor 8 (Bohan's TAESD shape, one block a level) that takes scaled latents."""
    return AutoencoderTiny(
        encoder_block_out_channels=(24, 24, 24, 24),
        decoder_block_out_channels=(24, 24, 24, 24),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        latent_channels=4,
    )


def train_tiny_autoencoder(data: LatentSet, work: Path, steps: int, seed: int = 0) -> AutoencoderTiny:
    """Teach the decoder to draw the training scenes from their latents, and the encoder the way back."""
    torch.manual_seed(seed)
    tiny = new_tiny_autoencoder().to(memory_format=torch.channels_last)
    trainee = Trainee(Plan(name="tiny", steps=steps, learning_rate=2e-3, ema_decay=0.995), {"tiny": tiny}, work)
    trainee.resume()

    def loss_at(step: int) -> Tensor:
        picks = np.random.default_rng([seed, 4, step]).integers(len(data.scenes), size=8)
        pixels = data.pixels(picks)
        latents = data.latents[torch.from_numpy(picks)].float()
        drawn = tiny.decode(latents).sample
        read = tiny.encode(pixels).latents
        return (drawn - pixels).abs().mean() + 0.1 * (read - latents).abs().mean()

    for _ in train(trainee, loss_at):
        pass
    trainee.use_averages()
    return tiny
