"""What is to be known of a judge before its numbers are believed: that it is part of what it judges."""

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.scores import JUDGE_CONFIG, JUDGE_RECIPE, MODEL_CONFIG, judge_kind
from studio.scoring import ScoringService

_TEXT_TOWERS: Mapping[tuple[int, int], tuple[str, tuple[str, ...]]] = {
    (768, 12): ("CLIP ViT-L/14", ("sd15", "sdxl")),
    (1024, 24): ("OpenCLIP ViT-H/14", ("sd21",)),
    (1280, 32): ("OpenCLIP ViT-bigG/14", ("sdxl",)),
}
"""Width and layers of text encoders that pipelines have, with the families that have them."""
_ARCHITECTURES = {"ViT-L-14": (768, 12), "ViT-H-14": (1024, 24), "ViT-bigG-14": (1280, 32)}
"""What the names of such begin with in open_clip."""


def judge_remark(scoring: ScoringService, judge: str, checkpoint_ids: Iterable[str], catalogue: Catalogue) -> str:
    """See `circular_words`, of the judge called `judge`; "" where it or a checkpoint is gone, or nobody judges."""
    try:
        return circular_words(scoring.folder_of(judge), checkpoint_ids, catalogue) if judge else ""
    except (NotFound, InvalidRequest):
        return ""


def circular_words(judge: Path, checkpoint_ids: Iterable[str], catalogue: Catalogue) -> str:
    """A sentence where the judge in a folder has the text encoder of a checkpoint that it judges: such a score tells
    how well the picture follows what that encoder made of the prompt. "" where it does not, or nobody knows."""
    name, families = _TEXT_TOWERS.get(_text_tower(judge), ("", ()))
    rows = [catalogue.checkpoint(checkpoint_id) for checkpoint_id in dict.fromkeys(checkpoint_ids)]
    own = [row.title for row in rows if row.family in families and not row.is_pocket]
    if not own:
        return ""
    return (
        f"The judge {judge.name} reads prompts as {name}, and so does {' and '.join(own)}: its score flatters what "
        "that encoder understands. Another judge, such as ViT-B/16, is fairer."
    )


def _text_tower(judge: Path) -> tuple[int, int]:
    """Width and layers of the judge's text encoder, whatever kind of judge it is; (0, 0) where nobody knows."""
    try:
        match judge_kind(judge):
            case "open_clip":
                config = json.loads((judge / JUDGE_CONFIG).read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
                return int(config["width"]), int(config["layers"])
            case "transformers":
                config = json.loads((judge / MODEL_CONFIG).read_text(encoding="utf-8"))["text_config"]
                return int(config["hidden_size"]), int(config["num_hidden_layers"])
            case "recipe":
                name = tomllib.loads((judge / JUDGE_RECIPE).read_text(encoding="utf-8"))["architecture"]
                return next((tower for start, tower in _ARCHITECTURES.items() if name.startswith(start)), (0, 0))
            case None:
                return 0, 0
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0, 0
