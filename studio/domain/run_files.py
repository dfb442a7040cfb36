"""What the files in a training run's folder are called."""

import re
from collections.abc import Mapping

PLAN, RECORD, EVENTS, SAMPLES = "plan.json", "run.json", "events.jsonl", "samples"
CHECKPOINTS, GRIDS = "checkpoints", "grids"
MOST_CHECKPOINTS = 24
"""Adapters that are kept of the looks of a run, at most."""
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


def checkpoint_name(step: int) -> str:
    """The adapter as it was looked at after training step `step`."""
    return f"{checkpoint_stem(step)}.safetensors"


def checkpoint_stem(step: int) -> str:
    """What such a file is called without its suffix."""
    return f"step-{step:06d}"


def checkpoint_step(name: str) -> int | None:
    """The step that `name` is the checkpoint of; None for the name of anything else."""
    found = re.fullmatch(r"step-(\d{6,})\.safetensors", name)
    return int(found[1]) if found else None


def is_sample(name: str) -> bool:
    """Whether `name` is that of a sample or of a teacher's picture, and so no way out of the folder."""
    return re.fullmatch(r"(teacher|control)-\d+\.png|\d{6,}-s\d+-\d+\.png", name) is not None
