"""What a training takes where nothing else is asked: by model, by preset, by how many pictures there are."""

from collections.abc import Mapping
from typing import Any, Literal

from studio.domain.catalogue import Checkpoint

PresetId = Literal["fast", "balanced", "high_quality"]
SubjectId = Literal["thing", "style"]
SUBJECT_TITLES: Mapping[SubjectId, str] = {"thing": "A thing, called by its word", "style": "A style, in every picture"}
PRESET_TITLES: Mapping[PresetId, str] = {"fast": "Fast", "balanced": "Balanced", "high_quality": "High quality"}

_LARGE_STEPS: Mapping[PresetId, tuple[int, int, int]] = {
    "fast": (60, 300, 1000),
    "balanced": (100, 500, 2000),
    "high_quality": (150, 800, 4000),
}
"""Steps for each picture, at least, at most."""
_POCKET_STEPS: Mapping[PresetId, int] = {"fast": 400, "balanced": 1200, "high_quality": 3000}
_POCKET_STYLE_STEPS: Mapping[PresetId, int] = {"fast": 400, "balanced": 1000, "high_quality": 2000}
POCKET_PRIOR, LARGE_PRIOR = 400, 200
"""Pictures of what it knew, where they are wanted and nobody says how many."""
_RANKS: Mapping[PresetId, int] = {"fast": 8, "balanced": 16, "high_quality": 32}


def usual_training(
    checkpoint: Checkpoint, preset: PresetId = "balanced", num_pictures: int = 0, subject: SubjectId = "thing"
) -> dict[str, Any]:
    """What is taken where nothing else is asked. Miniatures learn at rates that large models would not survive."""
    per_picture, least, most = _LARGE_STEPS[preset]
    is_sdxl, is_style = checkpoint.family == "sdxl", subject == "style"
    large = {
        "num_steps": min(max(per_picture * num_pictures, least), most),
        "batch_size": 1,
        "accumulation": 4 if is_sdxl else 1,
        "reach": "attention" if preset == "fast" else "attention_and_feed_forward",
        "learning_rate": 1e-4,
        "text_learning_rate": 0.0,
        "schedule": "constant" if preset == "fast" else "cosine",
        "rank": _RANKS[preset],
        "gradual": False,
    }
    pocket = {
        "num_steps": (_POCKET_STYLE_STEPS if is_style else _POCKET_STEPS)[preset],
        "batch_size": 4,
        "accumulation": 1,
        "reach": "all",
        "learning_rate": 2e-3,
        "text_learning_rate": 0.0 if is_style else 1e-3,
        "schedule": "cosine",
        "rank": 16 if is_style else 32,
        "gradual": is_style,
    }
    return {
        **(pocket if checkpoint.is_pocket else large),
        "size": checkpoint.native_size,
        "caption_dropout": 0.1 if is_style else 0.0,  # a thing is called by its word alone
        "prior_weight": 1.0,
        "guidance_scale": max(1.0, checkpoint.default_guidance),
    }


def usual_prior(checkpoint: Checkpoint, subject: SubjectId, *, has_prompts: bool) -> int:
    """How many pictures of what it knew; `has_prompts`: somebody said of what."""
    if subject == "style":  # it is to show in every picture, so nothing stays as it was
        return 0
    if checkpoint.is_pocket:
        return POCKET_PRIOR
    return LARGE_PRIOR if has_prompts else 0
