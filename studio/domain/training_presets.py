"""What a training takes where nothing else is asked: by model, by preset, by how many pictures there are."""

from collections.abc import Mapping
from typing import Any, Literal

from studio.domain.catalogue import Checkpoint

PresetId = Literal["fast", "balanced", "high_quality"]
PRESET_TITLES: Mapping[PresetId, str] = {"fast": "Fast", "balanced": "Balanced", "high_quality": "High quality"}

_LARGE_STEPS: Mapping[PresetId, tuple[int, int, int]] = {
    "fast": (60, 300, 1000),
    "balanced": (100, 500, 2000),
    "high_quality": (150, 800, 4000),
}
"""Steps for each picture, at least, at most."""
_POCKET_STEPS: Mapping[PresetId, int] = {"fast": 400, "balanced": 900, "high_quality": 2500}
_POCKET_RANK = 32
_RANKS: Mapping[PresetId, int] = {"fast": 8, "balanced": 16, "high_quality": 32}


def usual_training(checkpoint: Checkpoint, preset: PresetId = "balanced", num_pictures: int = 0) -> dict[str, Any]:
    """What is taken where nothing else is asked. Miniatures learn at rates that large models would not survive."""
    per_picture, least, most = _LARGE_STEPS[preset]
    is_sdxl = checkpoint.family == "sdxl"
    large = {
        "num_steps": min(max(per_picture * num_pictures, least), most),
        "batch_size": 1,
        "accumulation": 4 if is_sdxl else 1,
        "reach": "attention" if preset == "fast" else "attention_and_feed_forward",
        "learning_rate": 1e-4,
        "schedule": "constant" if preset == "fast" else "cosine",
    }
    pocket = {
        "num_steps": _POCKET_STEPS[preset],
        "batch_size": 4,
        "accumulation": 1,
        "reach": "all",
        "learning_rate": 2e-3,
        "schedule": "cosine",
    }
    return {
        **(pocket if checkpoint.is_pocket else large),
        "rank": _POCKET_RANK if checkpoint.is_pocket else _RANKS[preset],
        "text_learning_rate": 1e-3 if checkpoint.is_pocket else 0.0,
        "prior_weight": 0.5 if checkpoint.is_pocket else 1.0,
        "size": checkpoint.native_size,
        "guidance_scale": max(1.0, checkpoint.default_guidance),
    }
