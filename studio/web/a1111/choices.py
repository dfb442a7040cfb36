"""What callers of AUTOMATIC1111's API have chosen for their later requests: in memory, and of so many callers only."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

MOST = 1000
"""Of so many callers what they chose is remembered; of more, those are forgotten that were not there for longest."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """None: nothing was chosen."""

    checkpoint: str | None = None
    clip_skip: int | None = None

    def changed(self, by: "Chosen") -> "Chosen":
        """What holds once `by` is chosen too."""
        return Chosen(
            checkpoint=self.checkpoint if by.checkpoint is None else by.checkpoint,
            clip_skip=self.clip_skip if by.clip_skip is None else by.clip_skip,
        )


class Visitors:
    """What each of them has chosen; from any thread."""

    def __init__(self) -> None:
        self._chosen: OrderedDict[str, Chosen] = OrderedDict()
        self._lock = threading.Lock()

    def chosen(self, visitor: str) -> Chosen:
        """What `visitor` has chosen."""
        with self._lock:
            return self._chosen.get(visitor, Chosen())

    def remember(self, visitor: str, choose: Chosen) -> None:
        """Let what they `choose` hold for `visitor` from now on."""
        with self._lock:
            self._chosen[visitor] = self._chosen.pop(visitor, Chosen()).changed(choose)
            while len(self._chosen) > MOST:
                self._chosen.popitem(last=False)
