"""Where the teacher's paths ended, kept: in Flash they are most of a training step, and each is asked about again."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from engines.distillation.objectives import FLASH_PHASES
from engines.training.saving import save_whole

USES = 4
"""How often the student is asked about one endpoint; with fresh noise every time a step took the teacher 24 to 44 calls
of the UNet."""


class KeptEndpoints:
    """The endpoints of one training of `num_steps`, in `folder`. Steps of one phase that ask the same question have the
    same pictures, noise and guidance; so its endpoint is the same, too, whether it is computed or read."""

    def __init__(self, folder: Path, num_steps: int, uses: int = USES) -> None:
        self._folder = folder
        self._num_steps = num_steps
        self._uses = uses

    def question_of(self, step: int) -> int:
        """The step that `step` repeats: itself, or an earlier one of its phase."""
        phase = step * len(FLASH_PHASES) // self._num_steps
        first, end = (math.ceil(begun * self._num_steps / len(FLASH_PHASES)) for begun in (phase, phase + 1))
        return first + (step - first) % math.ceil((end - first) / self._uses)

    def recall(self, step: int, compute: Callable[[], Tensor]) -> Tensor:
        """The endpoint of the question at `step`, as it was kept, or else as `compute` gives it."""
        path = self._folder / f"{self.question_of(step):06d}.pt"
        if path.exists():
            return torch.load(path, weights_only=True)
        wanted = compute()
        self._folder.mkdir(parents=True, exist_ok=True)
        save_whole(wanted, path)
        return wanted

    def forget(self) -> None:
        """Remove them all: the training is over."""
        shutil.rmtree(self._folder, ignore_errors=True)
