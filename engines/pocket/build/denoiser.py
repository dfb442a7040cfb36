"""Train the UNet of a pocket model on cached latents, with a text encoder that already reads."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from engines.conditioning import Conditioning
from engines.pocket.build.latents import LatentSet
from engines.pocket.build.text import Reader
from engines.pocket.grammar import paraphrase
from engines.training.diffusion import NoiseSchedule, spread_indices
from engines.training.loop import Plan, Trainee, train
from studio.domain.catalogue import PredictionType

CAPTION_DROPOUT = 0.1
PURE_NOISE_FROM = 960
"""SD's noise leaves a trace of the picture even at the last timestep: its mean colour can be read there, so a model
learns to read it instead of the prompt. Sampling begins without that trace (Lin et al., 2024, arXiv:2305.08891), at
999 or, with leading timesteps, from 960 up."""
SNR_GAMMA = 5.0
SNR_FLOOR = 0.2
"""Below this signal-to-noise ratio the weight of an error in x₀ stays constant. Composition and background are decided
there, and a plain ε loss hardly sees them: at t = 999 an error in ε counts 14 times in x₀."""


def training_scheduler(prediction_type: PredictionType = "epsilon") -> DDPMScheduler:
    """SD's noise: 1000 steps, scaled-linear betas from 0.00085 to 0.012 (Rombach et al., 2022)."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type=prediction_type,
    )


@cache
def noise_schedule() -> NoiseSchedule:
    """ᾱ of each of SD's 1000 timesteps."""
    return NoiseSchedule.of(training_scheduler().config)


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """A UNet with what it is told and what it predicts."""

    unet: UNet2DConditionModel
    reader: Reader
    prediction_type: PredictionType = "epsilon"

    def predict(self, noisy: Tensor, timesteps: Tensor, told: Conditioning, time_ids: Tensor | None = None) -> Tensor:
        """The prediction `(B, 4, h, w)`; `time_ids` `(B, 6)` are SDXL's micro-conditions."""
        added = None if told.pooled is None else {"text_embeds": told.pooled, "time_ids": time_ids}
        return self.unet(noisy, timesteps, told.embeds, added_cond_kwargs=added).sample


def train_denoiser(
    denoiser: Denoiser,
    data: LatentSet,
    work: Path,
    plan: Plan,
    batch_size: int = 32,
) -> None:
    """Train the UNet to the end of `plan`, resuming from `work`; leaves its moving average in place."""
    unet = denoiser.unet
    # Plain matmul attention: the backward of CPU scaled-dot-product attention took 41 % of a step.
    unet.set_attn_processor(AttnProcessor())
    unet.to(memory_format=torch.channels_last)
    trainee = Trainee(plan, {"unet": unet}, work, muon=hidden_weights(unet))
    trainee.resume()
    schedule = noise_schedule()
    weights = schedule.snr_weights(denoiser.prediction_type, SNR_GAMMA, SNR_FLOOR)

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng([plan.seed, 3, step])
        picks = rng.choice(len(data.scenes), size=batch_size, p=data.shares)
        captions = ["" if rng.random() < CAPTION_DROPOUT else paraphrase(data.scenes[i], rng) for i in picks]
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        clean = data.latents[torch.from_numpy(picks)].float()
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = spread_indices(len(schedule), batch_size, generator)
        noisy = diffuse(clean, noise, timesteps)
        target = schedule.target(noisy, clean, timesteps, denoiser.prediction_type)
        told = denoiser.reader.read(captions)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", plan.dtype, enabled=plan.dtype != torch.float32):
            predicted = denoiser.predict(noisy, timesteps, told, data.time_ids(picks))
        per_image = (predicted.float() - target).square().mean(dim=(1, 2, 3))
        return (weights[timesteps] * per_image).mean()

    for _ in train(trainee, loss_at, log_every=200):
        pass
    trainee.use_averages()
    unet.set_default_attn_processor()


def hidden_weights(unet: UNet2DConditionModel) -> list[nn.Parameter]:
    """Every weight matrix and kernel between the first and the last convolution."""
    ends = (*unet.conv_in.parameters(), *unet.conv_out.parameters())
    outer = {id(parameter) for parameter in ends}
    return [p for p in unet.parameters() if p.ndim >= 2 and id(p) not in outer]


def diffuse(clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """The noisy latents `(B, 4, h, w)`; from `PURE_NOISE_FROM` on the noise alone, as it is where sampling begins."""
    is_pure = (timesteps >= PURE_NOISE_FROM).view(-1, 1, 1, 1)
    return torch.where(is_pure, noise, noise_schedule().noised(clean, noise, timesteps))
