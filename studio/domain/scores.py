"""How well a picture fits a text, as a judge puts it."""

from collections.abc import Mapping
from dataclasses import dataclass

JUDGE_CONFIG = "open_clip_config.json"
"""What makes a folder one of a judge."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A CLIP score (Hessel et al., 2021): `cosine`, in [-1, 1], between what `judge` makes of a picture and of `text`.

    `judge` names the model with the hash of its weights, how pictures are made ready for it and in which numbers it
    computes: scores of other judges are other numbers. `is_truncated` where the text was too long to be read whole.
    """

    judge: str
    text: str
    cosine: float
    is_truncated: bool = False


@dataclass(frozen=True, kw_only=True)
class JudgeExam:
    """What `judge` can tell on scenes that are drawn exactly. `skills`: how often it prefers a picture's own caption to
    one that is wrong in that alone, as (right, of); chance is one half. `ladder`: how many chains of captions with no,
    one, two and three errors it puts in that order, as (right, of); chance is 1 in 24. `rank`: Spearman's correlation
    of its scores with fewer errors, the mean over chains. `auroc`: how well one threshold of its score tells a
    picture's own caption from another scene's, and `auroc_foil` from one with a single error; 0.5 is chance."""

    judge: str
    skills: Mapping[str, tuple[int, int]]
    ladder: tuple[int, int]
    rank: float
    auroc: float
    auroc_foil: float
    pictures: int
