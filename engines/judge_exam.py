"""What a judge of pictures can and cannot see: asked on scenes that are drawn exactly, with captions that are wrong in
one thing, in several, or altogether. It also finds out random weights, a wrong activation and a broken tokenizer."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from scipy.stats import rankdata, spearmanr

from engines.pocket.accuracy import Tally
from engines.pocket.contrast import Scorer, asked
from engines.pocket.foils import FOIL_SKILLS, foils
from engines.pocket.grammar import caption
from engines.pocket.sampling import sample_scene
from engines.pocket.world import Scene, render
from studio.domain.scores import JudgeExam

_PER_SKILL, _CHAINS, _ERRORS = 60, 60, 3
_SEED, _PX = 20_261_128, 128


def examine(judge: str, score: Scorer, per_skill: int = _PER_SKILL, chains: int = _CHAINS) -> JudgeExam:
    """Ask the judge of that id, which scores by `score`; the questions are the same every time."""
    told, skills = list(asked(score, per_skill, _PX)), {skill: Tally() for skill in FOIL_SKILLS}
    for each in told:
        skills[each.trial.skill].add(each.own > each.foil)
    true, foiled = [each.own for each in told], [each.foil for each in told]
    texts = [caption(each.trial.scene) for each in told]
    # A scene far away in the list is of another kind.
    foreign = [texts[(place + len(texts) // 2) % len(texts)] for place in range(len(texts))]
    other = [score(each.image, text) for each, own, text in zip(told, texts, foreign, strict=True) if text != own]
    in_order, ranks = _climb(score, chains)
    return JudgeExam(
        judge=judge,
        skills={skill: (tally.right, tally.total) for skill, tally in skills.items()},
        ladder=(in_order, len(ranks)),
        rank=round(float(np.mean(ranks)), 4),
        auroc=auroc(true, other),
        auroc_foil=auroc(true, foiled),
        pictures=len(told) + len(ranks),
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
