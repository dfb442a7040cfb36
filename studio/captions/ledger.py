"""What the shards of a folder say so far of one template, whoever wrote it: who has a caption, and what all cost."""

import time
from dataclasses import dataclass
from pathlib import Path

from studio.captions.shards import Tail
from studio.domain.captions import CaptioningStopped, Row, Status

MAX_UNUSABLE = 3
"""So many answers that are no caption may a picture have, over all runs, before no more are asked for."""
_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Dollars for a million tokens; 0 where nothing is paid."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost, in dollars."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6

    @property
    def is_free(self) -> bool:
        return not (self.prompt or self.completion)


class Ledger:
    """Follows the shards of a folder. Not for several threads at once, but for `check_budget`."""

    def __init__(
        self, folder: Path, template: str, prices: Prices | None = None, max_cost: float | None = None
    ) -> None:
        """`max_cost` in dollars is for all that the folder's shards have of this template, earlier runs included."""
        self._tail = Tail(folder)
        self._template = template
        self._prices, self._max_cost = prices or Prices(), max_cost
        self._done: dict[bytes, str] = {}
        self._failed: dict[bytes, str] = {}
        self._unusable: dict[bytes, int] = {}
        self._own: set[Row] = set()
        self._prompt_tokens = self._completion_tokens = 0
        self._read_at = -_EVERY_S

    def refresh(self, *, is_now: bool = False) -> None:
        """Take in what other processes wrote, once a second at most unless it is to be now. Raises StorageFailed."""
        if not is_now and time.monotonic() - self._read_at < _EVERY_S:
            return
        for row in self._tail.rows():
            if row in self._own:
                self._own.discard(row)
            elif row.template == self._template:
                self._take(row)
        self._read_at = time.monotonic()

    def add(self, row: Row) -> None:
        """Take in a row of this process, which `refresh` will meet in its shard."""
        self._own.add(row)
        self._take(row)

    def is_had(self, digest: bytes, redone_after: str | None = None) -> bool:
        """Whether a picture needs no caption: it has one, or cannot have any. With `redone_after`, only one that was
        made later counts."""
        if redone_after is not None:
            return self._done.get(digest, "") > redone_after or self._failed.get(digest, "") > redone_after
        return digest in self._done or digest in self._failed or self.num_unusable(digest) >= MAX_UNUSABLE

    def is_failed(self, digest: bytes) -> bool:
        """Whether a picture has no caption, and no more are asked for."""
        return digest not in self._done and (digest in self._failed or self.num_unusable(digest) >= MAX_UNUSABLE)

    def num_unusable(self, digest: bytes) -> int:
        """How many answers to a picture were no caption."""
        return self._unusable.get(digest, 0)

    @property
    def cost(self) -> float:
        """Dollars so far."""
        return self._prices.of(self._prompt_tokens, self._completion_tokens)

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens so far: asked and answered."""
        return self._prompt_tokens, self._completion_tokens

    def check_budget(self) -> None:
        """Raises CaptioningStopped where no more may be spent."""
        if self._max_cost is not None and not self._prices.is_free and self.cost >= self._max_cost:
            raise CaptioningStopped(
                f"${self.cost:.2f} are spent, and ${self._max_cost:.2f} is the limit.",
                "What was captioned is kept: run it again with a larger --max-cost to go on.",
            )

    def _take(self, row: Row) -> None:
        self._prompt_tokens += row.prompt_tokens
        self._completion_tokens += row.completion_tokens
        if row.status is Status.UNUSABLE:
            self._unusable[row.digest] = self._unusable.get(row.digest, 0) + 1
            return
        dated = self._done if row.status is Status.DONE else self._failed
        dated[row.digest] = max(row.at, dated.get(row.digest, ""))
