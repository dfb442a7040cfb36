"""Train the VAE of a pocket model. It is the ceiling of everything after it, so colours and edges come first."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from engines.pocket.sampling import sample_scene
from engines.pocket.world import render
from engines.training.loop import Plan, Trainee, train

CROP_PX = 64
FOREGROUND_WEIGHT = 4.0
KL_WEIGHT = 1e-6
MAX_LATENT_NOISE = 0.25
"""Largest standard deviation of the noise on the scaled latents, whose own is held at 1. A denoiser's error is about
the same everywhere among them, so unlike colours must lie well apart: with hardly any noise pink lay 0.11 from mint
and red 0.17 from brown, and what was drawn there blurred or changed its colour."""
SPREAD_WEIGHT = 0.5


def new_autoencoder(size: int = 128, scaling_factor: float = 0.18215) -> AutoencoderKL:
    """An AutoencoderKL of factor 8 with 4 latent channels and 1.6 M parameters.

    Two norm groups: with many, each group normalises away the mean that carries a flat area's colour.
    """
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=size,
        mid_block_add_attention=False,
        scaling_factor=scaling_factor,
    )


def train_autoencoder(vae: AutoencoderKL, work: Path, steps: int, seed: int = 0, size: int = 128) -> None:
    """Train on crops, then for the last three tenths on whole pictures; resumes from `work`."""
    vae.train().requires_grad_(True).to(memory_format=torch.channels_last)
    scale = vae.config.scaling_factor
    trainee = Trainee(Plan(name="vae", steps=steps, learning_rate=1.5e-3, seed=seed), {"vae": vae}, work)
    trainee.resume()

    def loss_at(step: int) -> Tensor:
        whole = step >= 0.7 * steps
        pixels = picture_batch(
            np.random.default_rng([seed, step]), 4 if whole else 16, size, None if whole else CROP_PX
        )
        generator = torch.Generator().manual_seed(step)
        posterior = vae.encode(pixels).latent_dist
        latents = posterior.sample(generator)
        noise = torch.randn(latents.shape, generator=generator)
        spread = MAX_LATENT_NOISE * torch.rand(len(latents), 1, 1, 1, generator=generator)
        decoded = vae.decode(latents + spread * noise / scale).sample
        kl = posterior.kl().sum() / pixels.numel()
        excess = SPREAD_WEIGHT * spread_excess(posterior.mode() * scale)
        return reconstruction_loss(decoded, pixels) + KL_WEIGHT * kl + excess

    for _ in train(trainee, loss_at):
        pass
    trainee.use_averages()
    vae.eval().requires_grad_(False)


def spread_excess(latents: Tensor) -> Tensor:
    """How far the channels of `latents` `(B, 4, h, w)` are spread beyond a variance of 1: the mean squared logarithm.

    Without it an encoder drowns any noise by making its latents larger.
    """
    return latents.var(dim=(0, 2, 3)).clamp(min=1).log().square().mean()


def picture_batch(rng: np.random.Generator, count: int, size: int, crop: int | None) -> Tensor:
    """Draw `count` pictures as `(B, 3, H, W)` in [-1, 1]; with `crop`, one square that shows an edge of each."""
    pictures = []
    for _ in range(count):
        picture = np.asarray(render(sample_scene(rng), int(rng.integers(2**31)), size))
        pictures.append(picture if crop is None else _crop_at_edge(picture, crop, rng))
    return to_pixels(pictures)


def to_pixels(pictures: list[np.ndarray]) -> Tensor:
    """Stack `(H, W, 3)` pictures in [0, 255] into `(B, 3, H, W)` in [-1, 1], channels last."""
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return batch.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


def reconstruction_loss(decoded: Tensor, pixels: Tensor) -> Tensor:
    """L1 + squared error, weighted towards the foreground, plus L1 on the differences between neighbours."""
    middle = pixels.flatten(2).median(dim=2).values[:, :, None, None]
    foreground = ((pixels - middle).abs().amax(dim=1, keepdim=True) > 0.1).float()
    weight = 1 + (FOREGROUND_WEIGHT - 1) * foreground
    error = decoded - pixels
    edges = (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
    return (weight * (error.abs() + 2 * error.square())).mean() + edges


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, seed: int = 1, size: int = 128, batches: int = 16) -> None:
    """Fold a per-channel shift and scale into the 1×1 convolutions around the latents.

    Afterwards every latent channel has mean 0 and a standard deviation that the VAE's own `scaling_factor` brings to 1;
    pictures stay the same.
    """
    rng = np.random.default_rng(seed)
    latents = torch.cat([vae.encode(picture_batch(rng, 16, size, None)).latent_dist.mode() for _ in range(batches)])
    mean = latents.mean(dim=(0, 2, 3))
    factor = 1 / (vae.config.scaling_factor * latents.std(dim=(0, 2, 3)))
    quant, post = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight /= factor[None, :, None, None]
    quant.weight[:channels] *= factor[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) * factor
    quant.bias[channels:] += 2 * factor.log()


def round_trip(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Encode and decode `(B, 3, H, W)` in [-1, 1] without sampling noise; clamped to the same range."""
    with torch.no_grad():
        return F.hardtanh(vae.decode(vae.encode(pixels).latent_dist.mode()).sample)


def _crop_at_edge(picture: np.ndarray, crop: int, rng: np.random.Generator) -> np.ndarray:
    ys, xs = np.nonzero((picture != picture[0, 0]).any(axis=2))
    pick = int(rng.integers(len(ys)))
    limit = picture.shape[0] - crop
    top = int(np.clip(ys[pick] - rng.integers(crop), 0, limit))
    left = int(np.clip(xs[pick] - rng.integers(crop), 0, limit))
    return picture[top : top + crop, left : left + crop]
