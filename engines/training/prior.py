"""Prior preservation: what a checkpoint drew before it is to draw afterwards, too.

A set of pictures of ordinary prompts is made by the checkpoint itself, as DreamBooth does (Ruiz et al., 2023,
arXiv:2208.12242), and learnt beside the new ones. What is wanted there is not the noise that was added, but what the
checkpoint says without the adapter: the same in the mean, with none of its variance.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from engines.pocket.grammar import paraphrase
from engines.pocket.sampling import sample_scene
from engines.training.latents import TrainingPicture
from engines.training.samples import Sampler
from engines.training.saving import save_whole

_PIECE = 8
_SEED = 20_261_129


def prior_prompts(count: int, given: Sequence[str]) -> list[str]:
    """`count` prompts: those that are given, in turn, or else such as the pocket world knows."""
    if given:
        return [given[index % len(given)] for index in range(count)]
    generators = (np.random.default_rng([_SEED, index]) for index in range(count))
    return [other_prompt((), rng) for rng in generators]


def other_prompt(given: Sequence[str], rng: np.random.Generator) -> str:
    """One such prompt, by chance."""
    return given[int(rng.integers(len(given)))] if given else paraphrase(sample_scene(rng), rng)


def prior_pictures(
    sampler: Sampler,
    prompts: Sequence[str],
    folder: Path,
    weights: str,
    check: Callable[[], None],
    tell: Callable[[int, int], None],
) -> list[TrainingPicture]:
    """What the checkpoint draws of `prompts`, kept in `folder`; `weights` names it. The adapter must be off. `check` is
    called before each few of them, `tell` after.

    Raises:
        OSError: the folder cannot be written.
    """
    pictures = []
    for start in range(0, len(prompts), _PIECE):
        check()
        piece = prompts[start : start + _PIECE]
        for latents, prompt in zip(_latents(sampler, piece, start, folder, weights), piece, strict=True):
            side = sampler.size
            pictures.append(TrainingPicture(latents=latents, time_ids=(side, side, 0, 0, side, side), caption=prompt))
        tell(len(pictures), len(prompts))
    return pictures


def _latents(sampler: Sampler, prompts: Sequence[str], start: int, folder: Path, weights: str) -> torch.Tensor:
    key = json.dumps([weights, sampler.size, sampler.guidance, start, list(prompts)])
    place = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.pt"
    if place.exists():
        return torch.load(place, weights_only=True)
    made = sampler.latents(prompts, range(start, start + len(prompts)), (_SEED,)).half().cpu()
    folder.mkdir(parents=True, exist_ok=True)
    save_whole(made, place)
    return made
