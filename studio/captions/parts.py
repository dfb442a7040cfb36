"""Who captions which pictures: parts of one list, so that several people or machines share the work."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from studio.domain.errors import InvalidRequest

MAX_SHARDS = 10_000


@dataclass(frozen=True, kw_only=True)
class Range:
    """The pictures from the one numbered `start`, counted from 0, to before `end`, of the list in order of name; to its
    end where `end` is None. A range may reach beyond the list, and may be empty."""

    start: int = 0
    end: int | None = None

    @property
    def label(self) -> str:
        """The name of its shard."""
        if self.end is None:
            return "all" if not self.start else f"range-{self.start:08d}-end"
        return f"range-{self.start:08d}-{self.end:08d}"

    def of(self, names: Sequence[str]) -> Sequence[str]:
        """Its pictures; `names` are in order."""
        return names[self.start : self.end]


@dataclass(frozen=True, kw_only=True)
class Share:
    """Part `index` of `count`, counted from 1. A picture belongs to one of them by its name alone, so that it stays in
    its part when others are added or removed."""

    index: int
    count: int

    @property
    def label(self) -> str:
        """The name of its shard."""
        return f"shard-{self.index}-of-{self.count}"

    def of(self, names: Sequence[str]) -> Sequence[str]:
        """Its pictures, in the order of `names`."""
        return [name for name in names if _number(name) % self.count == self.index - 1]


Part = Range | Share


def parse_part(start: int | None, end: int | None, share: str | None) -> Part:
    """What `--start`, `--end` and `--shard` ask for; everything where none is given.

    Raises:
        InvalidRequest: they contradict each other, or are no part.
    """
    if share is not None:
        if start is not None or end is not None:
            raise InvalidRequest(
                "A part is given by --shard or by --start and --end, not by both.", "Leave one out.", "shard"
            )
        return _share(share)
    if (start or 0) < 0 or (end is not None and end < 0):
        raise InvalidRequest("Pictures are counted from 0.", "Give --start and --end of 0 or more.", "start")
    if end is not None and end < (start or 0):
        raise InvalidRequest(
            f"The range from {start} to {end} runs backwards.", "Give an --end that is not below --start.", "end"
        )
    return Range(start=start or 0, end=end)


def ranges(total: int, workers: int) -> Iterator[Range]:
    """`total` pictures in `workers` ranges without gap or overlap, whose sizes differ by one at most.

    Raises:
        InvalidRequest: fewer than one worker, or more than `MAX_SHARDS`.
    """
    if not 1 <= workers <= MAX_SHARDS:
        raise InvalidRequest(f"{workers} cannot share the work.", f"Give 1 to {MAX_SHARDS:,}.", "workers")
    for index in range(workers):
        yield Range(start=total * index // workers, end=total * (index + 1) // workers)


def _share(text: str) -> Share:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip(), re.ASCII)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count <= MAX_SHARDS:
        raise InvalidRequest(
            f"{text[:40]!r} is no part of the work.", "Give it as 1/4, which is the first of four.", "shard"
        )
    return Share(index=index, count=count)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big")
