"""What the files in a training run's folder are called."""

import re
from collections.abc import Mapping

PLAN, RECORD, EVENTS, SAMPLES = "plan.json", "run.json", "events.jsonl", "samples"
EXPORTS: Mapping[str, str] = {"kohya": "adapter.safetensors", "peft": "adapter-diffusers.safetensors"}
"""Layout → what a run leaves in it."""


def sample_name(step: int, few: int, index: int) -> str:
    """A sample: after training step `step`, drawn in `few` steps (0: as many as it takes), of prompt `index`."""
    return f"{step:06d}-s{few}-{index}.png"


def teacher_name(index: int) -> str:
    """The teacher's picture of prompt `index`."""
    return f"teacher-{index}.png"


def control_name(index: int) -> str:
    """Prompt `index` as the checkpoint draws it without the adapter in training."""
    return f"control-{index}.png"


def is_sample(name: str) -> bool:
    """Whether `name` is that of a sample or of a teacher's picture, and so no way out of the folder."""
    return re.fullmatch(r"(teacher|control)-\d+\.png|\d{6,}-s\d+-\d+\.png", name) is not None
