"""How unlike each other the pictures of one prompt are, and how like what was trained on, as a judge sees them.

Everything here takes embeddings as `ScoringService.embed_file` gives them: vectors of one length, all by one judge.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from studio.statistics import Estimate, mean, share

Vector = Sequence[float] | np.ndarray
Drawn = tuple[str, int]
"""A picture by its prompt and its seed."""

_SAME = 1 - 1e-5
"""Two pictures whose cosine is above are the same one, as far as float32 can tell."""
_QUANTILE = 0.95
MOST_NEAR = 0.1
"""Share of pictures near a training picture of which one may be sure before anything is said: 0.05 is usual for
pictures that were learnt by nobody, see `memorisation`."""
LEAST_TRAINING = 5
"""Different training pictures below which nobody can say what is near for them."""


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The training picture called `name`, which a picture is most like: by `cosine`, from -1 to 1."""

    name: str
    cosine: float


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """How many pictures are nearer to a training picture than those are to each other: `share`, over pictures, with
    Wilson's interval. Nearer means a cosine above `threshold`. `nearest` tells for every picture which one."""

    share: Estimate
    threshold: float
    nearest: Mapping[Drawn, Nearest]


def prompt_diversities(embeddings: Mapping[Drawn, Vector]) -> dict[str, float]:
    """For every prompt of two or more pictures 1 less the mean cosine of its pairs: 0 for pictures that are all the
    same, about 1 for such that have nothing in common (the diversity of Ruiz et al., 2022, arXiv:2208.12242, with a
    judge's embedding in place of LPIPS). It is unbiased in the number of pictures, so that prompts of different numbers
    can be compared."""
    by_prompt = defaultdict[str, list[Vector]](list)
    for (prompt, _), vector in embeddings.items():
        by_prompt[prompt].append(vector)
    return {prompt: _diversity(_unit(vectors)) for prompt, vectors in by_prompt.items() if len(vectors) > 1}


def _diversity(vectors: np.ndarray) -> float:
    """Of `(pictures, dimensions)`, two or more."""
    cosines = vectors @ vectors.T
    return 1 - float(cosines[np.triu_indices(len(vectors), k=1)].mean())


def diversity(embeddings: Mapping[Drawn, Vector]) -> Estimate | None:
    """How unlike the pictures of one prompt are: the mean over prompts, with the interval of `studio.statistics.mean`.
    None where every prompt has one picture."""
    return over_prompts(prompt_diversities(embeddings))


def over_prompts(diversities: Mapping[str, float]) -> Estimate | None:
    """The mean of `prompt_diversities`; its interval ends at 0, below which no diversity is."""
    if not diversities:
        return None
    told = mean(list(diversities.values()))
    return told if told.low is None else replace(told, low=max(0.0, told.low))


def nearest(embeddings: Mapping[Drawn, Vector], training: Mapping[str, Vector]) -> dict[Drawn, Nearest]:
    """For every picture the training picture that it is most like; nothing where there are none of either."""
    if not embeddings or not training:
        return {}
    names = [*training]
    cosines = _unit(list(embeddings.values())) @ _unit(list(training.values())).T
    best = [int(row.argmax()) for row in cosines]
    return {
        drawn: Nearest(name=names[place], cosine=float(row[place]))
        for drawn, row, place in zip(embeddings, cosines, best, strict=True)
    }


def near_threshold(training: Mapping[str, Vector]) -> float | None:
    """How like each other training pictures are at most: of the cosines between each and the one most like it the 95th
    percentile. Such as are in there twice do not count. None of fewer than five different ones."""
    vectors = _unit(list(training.values())) if training else np.zeros((0, 1))
    kept: list[int] = []
    for place, vector in enumerate(vectors):
        if not kept or float((vectors[kept] @ vector).max()) < _SAME:
            kept.append(place)
    if len(kept) < LEAST_TRAINING:
        return None
    cosines = vectors[kept] @ vectors[kept].T
    np.fill_diagonal(cosines, -1.0)
    return float(np.quantile(cosines.max(axis=1), _QUANTILE))


def memorisation(
    embeddings: Mapping[Drawn, Vector], training: Mapping[str, Vector], cleared: Collection[Drawn] = ()
) -> Memorisation | None:
    """How many pictures are copies of training pictures, or near it. None without pictures, or where `near_threshold`
    is. Those of `cleared`, which are known to show what they should, are no copies, however near they are.

    The measure is that of Somepalli et al. (2022, arXiv:2212.03860): each picture's likeness to the nearest training
    picture, beside how near those are to each other. Of pictures as different from the training pictures as those are
    from each other, about 5 % are above the threshold, or fewer.

    It cannot tell why. A prompt that asks for what a training picture shows is answered by a picture like it, learnt by
    heart or not, and a judge that looks at what is shown rather than how hardly tells the two apart. An adapter that
    has learnt a subject well is near for that reason alone: one for the crescents in `examples/` drew 71 % of scenes
    that it had never seen right, and 46 % of its pictures were above the threshold, of which 17 % were not right. So
    who can tell what is right clears that; else it takes prompts that are far from captions, and the pictures side by
    side. Nor does it find a copy that is mirrored, cut or a small part of the picture, as far as the judge takes that
    for something else. Pictures of one prompt are not independent of each other, which makes Wilson's interval too
    narrow where there are few prompts.
    """
    threshold, found = near_threshold(training), nearest(embeddings, training)
    if threshold is None or not found:
        return None
    near = sum(each.cosine > threshold and drawn not in cleared for drawn, each in found.items())
    return Memorisation(share=share(near, len(found)), threshold=threshold, nearest=found)


def is_surely_near(near: Estimate | None, without: Estimate | None) -> bool:
    """Whether more pictures are near training pictures than chance (`MOST_NEAR`) and the model without the adapter
    explain."""
    return near is not None and near.low is not None and near.low > max(MOST_NEAR, without.value if without else 0.0)


def _unit(vectors: Sequence[Vector]) -> np.ndarray:
    """As rows of length 1, in float64. Raises ValueError where they are not of one length."""
    rows = np.asarray(vectors, dtype=np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
