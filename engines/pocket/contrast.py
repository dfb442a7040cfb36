"""What a judge can tell apart: a picture's own caption against one that is wrong in a single thing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from engines.pocket.accuracy import Tally
from engines.pocket.foils import FOIL_SKILLS, foils
from engines.pocket.grammar import caption
from engines.pocket.sampling import sample_scene
from engines.pocket.world import Scene, render

TEST_SEED = 20_261_126
"""Training draws from other sequences."""

_KINDS = {"relation": "pair", "binding": "pair", "count": "count", "place": "place", "size": "size"}
"""Of scenes that ask for a skill; any kind asks for the others."""

Scorer = Callable[[Image.Image, str], float]
"""How well a picture fits a text; higher is better."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A scene drawn, and another that differs from it in `skill` alone."""

    skill: str
    scene: Scene
    foil: Scene
    seed: int


def trials(per_skill: int) -> Iterator[Trial]:
    """For each of `FOIL_SKILLS`, `per_skill` scenes that ask for it, each with its foil."""
    for key, skill in enumerate(FOIL_SKILLS):
        found = 0
        for index in range(100 * per_skill):
            rng = np.random.default_rng([TEST_SEED, key, index])
            scene = sample_scene(rng, _KINDS.get(skill))
            foil = foils(scene, rng).get(skill)
            if foil is not None:
                yield Trial(skill=skill, scene=scene, foil=foil, seed=int(rng.integers(2**31)))
                found += 1
            if found == per_skill:
                break


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A trial with its picture, and how well that fits its own caption and the foil's."""

    trial: Trial
    image: Image.Image
    own: float
    foil: float


def asked(score: Scorer, per_skill: int, size: int = 128) -> Iterator[Asked]:
    """Every trial as `score` judges it."""
    for trial in trials(per_skill):
        image = render(trial.scene, trial.seed, size)
        own, foil = score(image, caption(trial.scene)), score(image, caption(trial.foil))
        yield Asked(trial=trial, image=image, own=own, foil=foil)


def contrast(score: Scorer, per_skill: int = 100, size: int = 128) -> dict[str, Tally]:
    """How often `score` prefers the true caption to the foil's, by skill. Chance is one half; a tie is wrong."""
    told = {skill: Tally() for skill in FOIL_SKILLS}
    for each in asked(score, per_skill, size):
        told[each.trial.skill].add(each.own > each.foil)
    return told
