"""The best look at an adapter in training, with the adapter as it was then, kept on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engines.training.saving import save_whole
from studio.domain.run_events import Looked, Standing


class Best:
    """What is best so far of the run in `folder`; `factors` of an adapter are nested dictionaries of tensors."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "best.pt"
        kept = self._read()
        self._standing = Standing()
        if kept is not None:
            peak = kept.get("peak", kept["look"])  # none before 0.1.0
            self._standing = Standing(best=Looked(**kept["look"]), peak=Looked(**peak))

    @property
    def look(self) -> Looked | None:
        """The best look, whose adapter is kept; at first that of the untrained model."""
        return self._standing.best

    @property
    def peak(self) -> Looked | None:
        """The look that measured best, which may be luck."""
        return self._standing.peak

    def offer(self, look: Looked, factors: Callable[[], dict[str, Any]]) -> None:
        """Keep it if it is the best so far, see `Standing`."""
        standing = self._standing.after(look)
        if standing is self._standing or standing.peak is None:
            return
        self._standing = standing
        save_whole({"look": look.model_dump(), "peak": standing.peak.model_dump(), "factors": factors()}, self._path)

    def factors(self) -> dict[str, Any] | None:
        """The adapter of the best look; None while nothing is trained."""
        kept = self._read()
        return None if kept is None or not kept["look"]["step"] else kept["factors"]

    def _read(self) -> dict[str, Any] | None:
        return torch.load(self._path, weights_only=True) if self._path.exists() else None
