"""The adapters of a run as they were looked at, each in a file; of very many, some that lie well spread."""

from collections.abc import Callable, Collection
from pathlib import Path

from studio.domain.run_files import CHECKPOINTS, MOST_CHECKPOINTS, checkpoint_name, checkpoint_step

_PARTIAL = ".tmp-*"
"""What a write that a kill cut short leaves."""


class Checkpoints:
    """Those of the run in `folder`, which one process at a time works on."""

    def __init__(self, folder: Path, most: int = MOST_CHECKPOINTS) -> None:
        self._folder = folder / CHECKPOINTS
        self._most = most
        for partial in self._folder.glob(_PARTIAL):
            partial.unlink(missing_ok=True)

    def keep(self, step: int, write: Callable[[Path], None], best: int | None) -> None:
        """Let `write` put the adapter of `step` into its file; the one that was best so far, after step `best`, stays.

        Raises:
            OSError, StorageFailed: it cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        write(self._folder / checkpoint_name(step))
        for spare in spared(self._steps(), {step, best}, self._most):
            (self._folder / checkpoint_name(spare)).unlink(missing_ok=True)

    def _steps(self) -> list[int]:
        found = (checkpoint_step(path.name) for path in self._folder.iterdir())
        return sorted(step for step in found if step is not None)


def spared(steps: Collection[int], needed: Collection[int | None], most: int) -> list[int]:
    """Which of `steps` to do without so that `most` are left, evenly spread: one after the other that whose neighbours
    are nearest to each other, the earliest of equals; never the first, the last, or a `needed` one."""
    left, gone = sorted(steps), []
    while len(left) > most:
        inner = [place for place in range(1, len(left) - 1) if left[place] not in needed]
        if not inner:
            break
        gone.append(left.pop(min(inner, key=lambda place: left[place + 1] - left[place - 1])))
    return gone
