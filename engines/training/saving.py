"""State of a training on disk: whole or not there, whatever interrupts the writing."""

import os
from pathlib import Path
from typing import Any

import torch


def save_whole(state: Any, path: Path) -> None:
    """Write what `torch.load(path, weights_only=True)` gives back; until it is on disk, what was there before stays.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
