"""Looking at an adapter on the way: what it draws, beside what the checkpoint draws without it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from engines.training.diffusion import NoiseSchedule
from engines.training.drawing import decoded, noise_at
from engines.training.solver import solve
from engines.training.text import Texts
from engines.training.unet import Denoiser, Told, whole_picture
from studio.domain.timesteps import trailing_timesteps

SAMPLE_STEPS = 12
"""Of DPM-Solver++."""
_SEED = 20_261_127
"""Of the noise that samples begin from."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Draws prompts at `size` px, `at_once` together, each from noise of its own that is the same every time."""

    denoiser: Denoiser
    texts: Texts
    vae: Any
    schedule: NoiseSchedule
    size: int
    guidance: float
    is_sdxl: bool
    at_once: int

    def draw(self, prompts: Sequence[str]) -> list[Image.Image]:
        """A picture of each, with whatever changes the checkpoint at this moment."""
        return decoded(self.vae, self.latents(prompts, range(len(prompts)), (_SEED,)))

    def latents(self, prompts: Sequence[str], picks: range, seed: tuple[int, ...]) -> Tensor:
        """The scaled latents of a picture of each, `(B, 4, h, w)`, from the noise of these numbers of a sequence."""
        starts = range(0, len(prompts), self.at_once)
        parts = (slice(start, start + self.at_once) for start in starts)
        return torch.cat([self._together(prompts[part], picks[part], seed) for part in parts])

    @torch.no_grad()
    def _together(self, prompts: Sequence[str], picks: range, seed: tuple[int, ...]) -> Tensor:
        device = self.denoiser.unet.device
        time_ids = whole_picture(self.size, len(prompts), self.is_sdxl)
        told = Told(
            prompt=self.texts.read(prompts),
            negative=self.texts.read([""], is_negative=True),
            time_ids=None if time_ids is None else time_ids.to(device),
        )
        return self._solved(noise_at(picks, self.size, seed).to(device), told)

    def _solved(self, noise: Tensor, told: Told) -> Tensor:
        guidance = torch.full((len(noise),), self.guidance, device=noise.device)
        return solve(
            lambda noisy, timesteps: self.denoiser.guided(noisy, timesteps, told, guidance),
            self.denoiser.prediction_type,
            self.schedule,
            noise,
            trailing_timesteps(SAMPLE_STEPS),
        )
