"""The best look at an adapter in training, with the adapter as it was then, kept on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engines.training.saving import save_whole
from studio.domain.run_events import Looked


class Best:
    """What is best so far of the run in `folder`; `factors` of an adapter are nested dictionaries of tensors."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "best.pt"
        kept = self._read()
        self.look: Looked | None = None if kept is None else Looked(**kept["look"])
        self.peak: Looked | None = None if kept is None else Looked(**kept.get("peak", kept["look"]))
        """The look that measured best, which may be luck."""

    def offer(self, look: Looked, factors: Callable[[], dict[str, Any]]) -> None:
        """Keep it if it is the best so far, see `best_look`; the untrained model's counts as none."""
        if self.peak is None or look.rank > self.peak.rank or self.peak.step == 0:
            self.peak = look
        elif not look.is_as_good_as(self.peak):
            return
        self.look = look
        save_whole({"look": look.model_dump(), "peak": self.peak.model_dump(), "factors": factors()}, self._path)

    def factors(self) -> dict[str, Any] | None:
        """The adapter of the best look; None while nothing is trained."""
        kept = self._read()
        return None if kept is None or not kept["look"]["step"] else kept["factors"]

    def _read(self) -> dict[str, Any] | None:
        return torch.load(self._path, weights_only=True) if self._path.exists() else None
