"""Train the UNet of a pocket model on cached latents, with a text encoder that already reads."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from engines.pocket.build.autoencoder import to_pixels
from engines.pocket.build.loop import Plan, Trainee, train
from engines.pocket.build.text import tokenize
from engines.pocket.grammar import paraphrase
from engines.pocket.sampling import sample_scene
from engines.pocket.world import Scene, render

CAPTION_DROPOUT = 0.1
PURE_NOISE_FROM = 960
"""SD's noise leaves a trace of the picture even at the last timestep: its mean colour can be read there, so a model
learns to read it instead of the prompt. Sampling begins without that trace (Lin et al., 2024, arXiv:2305.08891), at
999 or, with leading timesteps, from 960 up."""
SNR_GAMMA = 5.0
SNR_FLOOR = 0.2
"""Below this signal-to-noise ratio the weight of an error in x₀ stays constant. Composition and background are decided
there, and a plain ε loss hardly sees them: at t = 999 an error in ε counts 14 times in x₀."""


@dataclass(frozen=True, kw_only=True)
class LatentSet:
    """The training scenes of a seed with their scaled latents `(N, 4, H/8, W/8)`, float16."""

    scenes: tuple[Scene, ...]
    latents: Tensor
    seed: int

    def pixels(self, picks: Iterable[int], size: int) -> Tensor:
        """The pictures that the latents were made from, `(B, 3, H, W)` in [-1, 1]."""
        return to_pixels([draw_scene(self.scenes[i], self.seed, int(i), size) for i in picks])


def training_scheduler() -> DDPMScheduler:
    """SD's noise: 1000 steps, scaled-linear betas from 0.00085 to 0.012, ε-prediction (Rombach et al., 2022)."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type="epsilon",
    )


@cache
def alphas_cumprod() -> Tensor:
    """ᾱ of each of SD's 1000 timesteps."""
    return training_scheduler().alphas_cumprod


def new_unet(latent_size: int = 16, text_width: int = 128) -> UNet2DConditionModel:
    """A UNet of three levels (16, 8 and 4 cells a side at 128 px) with attention in the two coarser ones.

    Objects are two cells wide and more at 8 × 8, which is where words are bound to places; the finest level only draws
    edges, and attention there would double the cost of a step.
    """
    unet = UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    _zero_outputs(unet)
    return unet


def cache_latents(vae: AutoencoderKL, path: Path, count: int, size: int, seed: int = 0) -> LatentSet:
    """Draw `count` training scenes and encode them, or load what the same call left at `path`."""
    scenes = tuple(scene_at(seed, index) for index in range(count))
    key = f"{count}-{size}-{seed}"
    if path.exists():
        kept = torch.load(path, weights_only=True)
        if kept["key"] == key:
            return LatentSet(scenes=scenes, latents=kept["latents"], seed=seed)
    chunks = []
    with torch.no_grad():
        for start in range(0, count, 32):
            chunk = range(start, min(start + 32, count))
            pixels = to_pixels([draw_scene(scenes[i], seed, i, size) for i in chunk])
            latents = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
            chunks.append(latents.half())
    latents = torch.cat(chunks)
    torch.save({"key": key, "latents": latents}, path)
    return LatentSet(scenes=scenes, latents=latents, seed=seed)


def scene_at(seed: int, index: int) -> Scene:
    """The `index`-th training scene."""
    return sample_scene(np.random.default_rng([seed, 2, index]))


def draw_scene(scene: Scene, seed: int, index: int, size: int) -> np.ndarray:
    """The `index`-th training picture, `(H, W, 3)` in [0, 255]."""
    return np.asarray(render(scene, seed * 10_000_000 + index, size))


def train_denoiser(
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    data: LatentSet,
    work: Path,
    plan: Plan,
    batch_size: int = 32,
    on_log: Callable[[int, Trainee], None] | None = None,
) -> None:
    """Train `unet` to the end of `plan`, resuming from `work`; leaves its moving average in place."""
    # Plain matmul attention: the backward of CPU scaled-dot-product attention took 41 % of a step.
    unet.set_attn_processor(AttnProcessor())
    unet.to(memory_format=torch.channels_last)
    encoder.eval().requires_grad_(False)
    trainee = Trainee(plan, {"unet": unet}, work, muon=hidden_weights(unet))
    trainee.resume()
    weights = snr_weights(alphas_cumprod())

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng([plan.seed, 3, step])
        picks = rng.integers(len(data.scenes), size=batch_size)
        captions = ["" if rng.random() < CAPTION_DROPOUT else paraphrase(data.scenes[i], rng) for i in picks]
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        clean = data.latents[torch.from_numpy(picks)].float()
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = spread_timesteps(batch_size, generator)
        noisy, target = diffuse(clean, noise, timesteps, alphas_cumprod())
        with torch.no_grad():
            prompt_embeds = encoder(tokenize(tokenizer, captions)).last_hidden_state
        noise_pred = unet(noisy.contiguous(memory_format=torch.channels_last), timesteps, prompt_embeds).sample
        per_image = (noise_pred - target).square().mean(dim=(1, 2, 3))
        return (weights[timesteps] * per_image).mean()

    for step in train(trainee, loss_at, log_every=200):
        if on_log is not None:
            on_log(step, trainee)
    trainee.use_averages()
    unet.set_default_attn_processor()


def hidden_weights(unet: UNet2DConditionModel) -> list[nn.Parameter]:
    """Every weight matrix and kernel between the first and the last convolution."""
    ends = (*unet.conv_in.parameters(), *unet.conv_out.parameters())
    outer = {id(parameter) for parameter in ends}
    return [p for p in unet.parameters() if p.ndim >= 2 and id(p) not in outer]


def diffuse(clean: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> tuple[Tensor, Tensor]:
    """The noisy latents and the ε to predict, each `(B, 4, h, w)`.

    From `PURE_NOISE_FROM` on the input is the noise alone, as it is where sampling begins, and ε is what leads from it
    to the clean latents.
    """
    alphas = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    is_pure = (timesteps >= PURE_NOISE_FROM).view(-1, 1, 1, 1)
    noisy = alphas.sqrt() * clean + (1 - alphas).sqrt() * noise
    toward_clean = (noise - alphas.sqrt() * clean) / (1 - alphas).sqrt()
    return torch.where(is_pure, noise, noisy), torch.where(is_pure, toward_clean, noise)


def spread_timesteps(count: int, generator: torch.Generator) -> Tensor:
    """One random timestep from each of `count` equal parts of 0…999: uniform, less variance than apart."""
    offsets = torch.rand(count, generator=generator)
    return ((torch.arange(count) + offsets) * (1000 / count)).long()


def snr_weights(alphas_cumprod: Tensor, gamma: float = SNR_GAMMA, floor: float = SNR_FLOOR) -> Tensor:
    """Weight of an ε loss per timestep: min(max(SNR, floor), γ) / SNR; without the floor it is min-SNR-γ
    (Hang et al., 2023)."""
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(min=floor, max=gamma) / snr


def _zero_outputs(unet: UNet2DConditionModel) -> None:
    """Begin every residual branch at zero, so that a high learning rate is stable from the first step."""
    last = [unet.conv_out]
    for name, module in unet.named_modules():
        if name.endswith((".conv2", ".proj_out")):
            last.append(module)
    for module in last:
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
