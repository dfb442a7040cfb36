"""How well a picture fits a text, as a judge puts it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

JUDGE_CONFIG, JUDGE_RECIPE, MODEL_CONFIG = "open_clip_config.json", "judge.toml", "config.json"
JudgeKind = Literal["open_clip", "recipe", "transformers"]


def judge_kind(folder: Path) -> JudgeKind | None:
    """What makes a folder one of a judge; None where nothing does.

    `open_clip`: an open_clip_config.json, as open_clip's models on the hub have it, beside weights and tokenizer.
    `recipe`: a judge.toml, which names an architecture of open_clip. `transformers`: a config.json of a CLIPModel, as
    PickScore and OpenAI's models on the hub have it. The first of these counts.
    """
    if (folder / JUDGE_CONFIG).is_file():
        return "open_clip"
    if (folder / JUDGE_RECIPE).is_file():
        return "recipe"
    try:
        config: Any = json.loads((folder / MODEL_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_clip = isinstance(config, dict) and cast(dict[str, Any], config).get("model_type") == "clip"
    return "transformers" if is_clip else None


def is_judge(folder: Path) -> bool:
    """Whether the folder looks like that of a judge; nobody has loaded it yet."""
    return judge_kind(folder) is not None


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
