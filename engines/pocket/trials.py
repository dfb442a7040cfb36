"""Prompts that a pocket model is tested with, each with the scene that it means. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engines.pocket.grammar import paraphrase, says_background
from engines.pocket.sampling import MIXTURE, sample_scene
from engines.pocket.world import Scene

TEST_SEED = 20_261_121
"""Base of the seeds of test prompts; training draws from other sequences."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One test prompt with the scene it means."""

    kind: str
    is_held_out: bool
    scene: Scene
    prompt: str
    seed: int


def trials(per_kind: int, held_out_per_kind: int, base_seed: int = TEST_SEED) -> Iterator[Trial]:
    """Draw test prompts, paraphrased as people would, each naming its background so that it can be judged."""
    for key, kind in enumerate(MIXTURE):
        for is_held_out, count in ((False, per_kind), (True, held_out_per_kind)):
            for index in range(count):
                yield trial(kind, is_held_out, np.random.default_rng([base_seed, key, is_held_out, index]))


def trial(kind: str, is_held_out: bool, rng: np.random.Generator) -> Trial:
    """One test prompt; with `is_held_out` of combinations that training never sees."""
    scene = sample_scene(rng, kind, is_held_out)
    prompt = paraphrase(scene, rng)
    while not says_background(prompt, scene):
        prompt = paraphrase(scene, rng)
    return Trial(kind=kind, is_held_out=is_held_out, scene=scene, prompt=prompt, seed=int(rng.integers(2**32)))
