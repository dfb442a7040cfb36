"""Teach the VAE's decoder to read the latents that a denoiser leaves, which are never quite those of a picture.

A VAE with hardly any KL only meets flawless latents while it is trained: noise of a tenth of their spread spoilt every
second picture (33 of 64 were still right). The encoder stays as it is, and with it the latents.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from engines.pocket.build.autoencoder import reconstruction_loss
from engines.pocket.build.denoiser import Denoiser, diffuse, noise_schedule
from engines.pocket.build.latents import LatentSet
from engines.pocket.grammar import paraphrase
from engines.training.loop import Plan, Trainee, train

MAX_NOISE = 0.1
"""Largest standard deviation of plain noise on the scaled latents. Twice as much taught robustness sooner, and cost 7
of 100 clean reconstructions."""
MAX_TIMESTEP = 200
"""Denoised estimates come from timesteps below this one: later ones hardly show yet what the picture will be."""
MAX_GUIDANCE = 5.0


@torch.no_grad()
def estimate(denoiser: Denoiser, data: LatentSet, picks: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Noise the latents of `picks` to random timesteps and estimate them again, as one guided step of sampling."""
    clean = data.latents[torch.from_numpy(picks)].float()
    timesteps = torch.from_numpy(rng.integers(MAX_TIMESTEP, size=len(picks)))
    noisy = diffuse(clean, _normal(clean.shape, rng), timesteps)
    told = denoiser.reader.read([*([""] * len(picks)), *(paraphrase(data.scenes[i], rng) for i in picks)])
    time_ids = data.time_ids([*picks, *picks])
    plain, prompted = denoiser.predict(noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), told, time_ids).chunk(2)
    guidance = torch.from_numpy(rng.uniform(1, MAX_GUIDANCE, len(picks))).float().view(-1, 1, 1, 1)
    guided = plain + guidance * (prompted - plain)
    return noise_schedule().clean_from(noisy, guided, timesteps, denoiser.prediction_type)


def noised_and_estimated(denoiser: Denoiser, data: LatentSet, picks: np.ndarray, rng: np.random.Generator) -> Tensor:
    """The latents of `picks`: the first half with plain noise on them, the second half as `estimate` leaves them."""
    half = len(picks) // 2
    clean = data.latents[torch.from_numpy(picks[:half])].float()
    spread = torch.from_numpy(rng.uniform(0, MAX_NOISE, half)).float().view(-1, 1, 1, 1)
    estimated = estimate(denoiser, data, picks[half:], rng)
    return torch.cat([clean + spread * _normal(clean.shape, rng), estimated])


def train_decoder(
    vae: AutoencoderKL, denoiser: Denoiser, data: LatentSet, work: Path, plan: Plan, batch_size: int = 8
) -> None:
    """Train `vae.decoder` on latents of which half are denoised estimates and half carry plain noise; resumes."""
    decoder = nn.ModuleDict({"post_quant_conv": vae.post_quant_conv, "decoder": vae.decoder})
    decoder.train().requires_grad_(True)
    decoder.to(memory_format=torch.channels_last)
    trainee = Trainee(plan, {"decoder": decoder}, work)
    trainee.resume()

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng([plan.seed, 5, step])
        picks = rng.integers(len(data.scenes), size=batch_size)
        latents = noised_and_estimated(denoiser, data, picks, rng)
        return reconstruction_loss(vae.decode(latents / vae.config.scaling_factor).sample, data.pixels(picks))

    for _ in train(trainee, loss_at):
        pass
    trainee.use_averages()
    vae.eval().requires_grad_(False)


def _normal(shape: torch.Size, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))
