"""Teach the VAE's decoder to read the latents that a denoiser leaves, which are never quite those of a picture.

A VAE with hardly any KL only meets flawless latents while it is trained: noise of a tenth of their spread spoilt every
second picture (33 of 64 were still right). The encoder stays as it is, and with it the latents.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from engines.pocket.build.autoencoder import reconstruction_loss
from engines.pocket.build.denoiser import LatentSet, alphas_cumprod, diffuse
from engines.pocket.build.loop import Plan, Trainee, train
from engines.pocket.build.text import tokenize
from engines.pocket.grammar import paraphrase
from engines.pocket.world import Scene

MAX_NOISE = 0.1
"""Largest standard deviation of plain noise on the scaled latents. Twice as much taught robustness sooner, and cost 7
of 100 clean reconstructions."""
MAX_TIMESTEP = 200
"""Denoised estimates come from timesteps below this one: later ones hardly show yet what the picture will be."""
MAX_GUIDANCE = 5.0


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """The trained parts whose estimates the decoder learns to read."""

    unet: UNet2DConditionModel
    encoder: CLIPTextModel
    tokenizer: CLIPTokenizer

    @torch.no_grad()
    def estimate(self, clean: Tensor, scenes: list[Scene], rng: np.random.Generator) -> Tensor:
        """Noise `clean` `(B, 4, h, w)` to random timesteps and estimate it again, as one guided step of sampling."""
        timesteps = torch.from_numpy(rng.integers(MAX_TIMESTEP, size=len(scenes)))
        noisy, _ = diffuse(clean, _normal(clean.shape, rng), timesteps, alphas_cumprod())
        captions = [*([""] * len(scenes)), *(paraphrase(scene, rng) for scene in scenes)]
        embeds = self.encoder(tokenize(self.tokenizer, captions)).last_hidden_state
        plain, prompted = self.unet(noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), embeds).sample.chunk(2)
        guidance = torch.from_numpy(rng.uniform(1, MAX_GUIDANCE, len(scenes))).float().view(-1, 1, 1, 1)
        alphas = alphas_cumprod()[timesteps].view(-1, 1, 1, 1)
        noise_pred = plain + guidance * (prompted - plain)
        return (noisy - (1 - alphas).sqrt() * noise_pred) / alphas.sqrt()


def train_decoder(
    vae: AutoencoderKL, denoiser: Denoiser, data: LatentSet, work: Path, plan: Plan, size: int, batch_size: int = 8
) -> None:
    """Train `vae.decoder` on latents of which half are denoised estimates and half carry plain noise; resumes."""
    decoder = nn.ModuleDict({"post_quant_conv": vae.post_quant_conv, "decoder": vae.decoder})
    decoder.train().requires_grad_(True)
    decoder.to(memory_format=torch.channels_last)
    trainee = Trainee(plan, {"decoder": decoder}, work)
    trainee.resume()
    half = batch_size // 2

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng([plan.seed, 5, step])
        picks = rng.integers(len(data.scenes), size=batch_size)
        clean = data.latents[torch.from_numpy(picks)].float()
        spread = torch.from_numpy(rng.uniform(0, MAX_NOISE, half)).float().view(-1, 1, 1, 1)
        estimated = denoiser.estimate(clean[half:], [data.scenes[i] for i in picks[half:]], rng)
        latents = torch.cat([clean[:half] + spread * _normal(clean[:half].shape, rng), estimated])
        return reconstruction_loss(vae.decode(latents / vae.config.scaling_factor).sample, data.pixels(picks, size))

    for _ in train(trainee, loss_at):
        pass
    trainee.use_averages()
    vae.eval().requires_grad_(False)


def _normal(shape: torch.Size, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))
