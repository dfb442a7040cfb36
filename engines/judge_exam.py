"""What a judge of pictures can and cannot see: asked on scenes that are drawn exactly, with captions that are wrong in
one thing, in several, or altogether. It also finds out random weights, a wrong activation and a broken tokenizer."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from PIL import Image
from scipy.stats import rankdata, spearmanr

from engines.pocket.contrast import trials
from engines.pocket.foils import FOIL_SKILLS, foils
from engines.pocket.grammar import caption
from engines.pocket.sampling import sample_scene
from engines.pocket.world import Scene, render
from studio.domain.scores import JudgeExam

_PER_SKILL, _CHAINS, _ERRORS = 60, 60, 3
_SEED, _PX = 20_261_128, 128

Scorer = Callable[[Image.Image, str], float]
"""How well a picture fits a text; higher is better."""


def examine(judge: str, score: Scorer, per_skill: int = _PER_SKILL, chains: int = _CHAINS) -> JudgeExam:
    """Ask the judge of that id, which scores by `score`; the questions are the same every time."""
    skills = {skill: [0, 0] for skill in FOIL_SKILLS}
    true, foiled, other, texts, images = [], [], [], [], []
    for trial in trials(per_skill):
        image, text = render(trial.scene, trial.seed, _PX), caption(trial.scene)
        own, foil = score(image, text), score(image, caption(trial.foil))
        skills[trial.skill][0] += own > foil
        skills[trial.skill][1] += 1
        true.append(own)
        foiled.append(foil)
        texts.append(text)
        images.append(image)
    for place, image in enumerate(images):  # a scene far away in the list is of another kind
        foreign = texts[(place + len(texts) // 2) % len(texts)]
        if foreign != texts[place]:
            other.append(score(image, foreign))
    in_order, ranks = _climb(score, chains)
    return JudgeExam(
        judge=judge,
        skills={skill: (right, total) for skill, (right, total) in skills.items()},
        ladder=(in_order, len(ranks)),
        rank=round(float(np.mean(ranks)), 4),
        auroc=auroc(true, other),
        auroc_foil=auroc(true, foiled),
        pictures=len(images) + len(ranks),
    )


def _climb(score: Scorer, count: int) -> tuple[int, list[float]]:
    """How many chains are put in order, and the correlation of each with the number of errors (TS2, Saxon et al.,
    2024, arXiv:2404.04251)."""
    in_order, ranks = 0, []
    for scene, seed, chain in _chains(count):
        image = render(scene, seed, _PX)
        told = [score(image, caption(each)) for each in chain]
        in_order += all(first > second for first, second in pairwise(told))
        rank = float(spearmanr(told, range(len(told), 0, -1)).statistic) if len(set(told)) > 1 else 0.0
        ranks.append(rank)
    return in_order, ranks


def _chains(count: int) -> Iterator[tuple[Scene, int, list[Scene]]]:
    """Scenes with more and more errors, each in another skill."""
    found = 0
    for index in range(100 * count):
        rng = np.random.default_rng([_SEED, index])
        scene = sample_scene(rng)
        chain, spoilt = [scene], set[str]()
        while len(chain) <= _ERRORS:
            able = {skill: foil for skill, foil in foils(chain[-1], rng).items() if skill not in spoilt}
            if not able:
                break
            skill = str(rng.choice(sorted(able)))
            spoilt |= {skill, *(("colour", "binding") if skill in ("colour", "binding") else ())}
            chain.append(able[skill])
        if len(chain) == _ERRORS + 1 and len({caption(each) for each in chain}) == len(chain):
            yield scene, int(rng.integers(2**31)), chain
            found += 1
        if found == count:
            return


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The share of pairs in which the positive is above the negative, a tie as half (Mann & Whitney, 1947)."""
    ranks = rankdata([*positive, *negative])
    count, others = len(positive), len(negative)
    above = float(ranks[:count].sum()) - count * (count + 1) / 2
    return round(above / (count * others), 4)
