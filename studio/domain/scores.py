"""How well a picture fits a text, as a judge puts it."""

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
