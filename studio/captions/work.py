"""Captions for a part of a folder: each picture once, whatever breaks, and whoever else is at work on the same folder.

A picture that fails for now is put aside and the next one taken; what a service asks to wait is waited, by all; what
cannot pass ends the work at once. Whatever was made by then is in the shard, and the next run goes on from there.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path

from studio.captions.ledger import MAX_UNUSABLE, Ledger
from studio.captions.pictures import digest_of
from studio.captions.shards import Shard
from studio.domain.captions import Answer, Captioner, CaptioningStopped, Later, Row, Status, Unfit, Unusable, now
from studio.domain.errors import StudioError

logger = logging.getLogger(__name__)

MAX_TRIES = 6
"""So often is a picture tried in one run; the next run tries again."""
MAX_FAILURES = 24
"""So many attempts fail in a row, of whatever pictures, before the service counts as down."""
_MAX_BACKOFF_S = 60.0
_TOLD_S = 5.0
_SLICE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How the work is done: how many pictures at once, at most so many in all (None: every one), at most so many
    seconds of waiting at a stretch (None: as long as it takes), and what of the work is done anew, by the pictures'
    digests (see `read_redo_list`)."""

    parallel: int = 1
    limit: int | None = None
    max_wait_s: float | None = None
    redo: Mapping[bytes, str] = field(default_factory=dict[bytes, str])


@dataclass(kw_only=True)
class Done:
    """What a run did, by pictures; `parked` were put aside too often, with the last reason."""

    num_pictures: int = 0
    made: int = 0
    had: int = 0
    """Had a caption, or were given one by another process meanwhile."""
    failed: int = 0
    unusable: int = 0
    """Answers that were no caption."""
    gone: int = 0
    calls: int = 0
    parked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def summary(self) -> str:
        rest = (
            (self.had, "had a caption"),
            (self.failed, "cannot be captioned"),
            (self.unusable, "answers were of no use"),
            (self.gone, "went away or changed"),
            (len(self.parked), "put off: run it again for them"),
        )
        told = [f"{count} {what}" for count, what in rest if count]
        return f"{', '.join([f'{self.made} captioned', *told])}."


OnProgress = Callable[[Done, str], None]
"""Told after each picture, and of each wait in a sentence; "" with a picture."""


@dataclass(frozen=True, slots=True)
class _Item:
    name: str
    digest: bytes
    stamp: tuple[int, int]
    tries: int = 0


def run(
    folder: Path,
    names: Sequence[str],
    captioner: Captioner,
    shard: Shard,
    ledger: Ledger,
    wishes: Wishes | None = None,
    on_progress: OnProgress | None = None,
) -> Done:
    """Caption `names`, pictures of `folder`, into `shard`; those that have a caption of this template in any shard that
    `ledger` sees are passed over.

    Raises:
        StudioError: no more can be captioned now; what was made is kept, and a later run goes on.
        KeyboardInterrupt: once what was under way is kept.
    """
    work = _Work(folder, names, captioner, shard, ledger, wishes or Wishes(), on_progress)
    ledger.refresh(is_now=True)  # who had this shard before may have written until the lock was free
    try:
        work.start()
        # Not `join`: one that Ctrl+C interrupts takes its thread for ended (bpo-45274).
        while not work.is_ended(_SLICE_S):
            continue
    except KeyboardInterrupt:
        work.stop(None)
        while not work.is_ended(_SLICE_S):
            continue
        raise
    if work.error is not None:
        raise work.error
    return work.done


class _Work:
    """What threads share. Everything but `caption` is done under one lock."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        captioner: Captioner,
        shard: Shard,
        ledger: Ledger,
        wishes: Wishes,
        on_progress: OnProgress | None,
    ) -> None:
        self.wishes, self.done = wishes, Done(num_pictures=len(names))
        self.error: BaseException | None = None
        self._folder, self._captioner, self._shard, self._ledger = folder, captioner, shard, ledger
        self._tell = on_progress or _say_nothing
        self._condition = threading.Condition()
        self._fresh = self._items(names)
        self._waiting: list[tuple[float, int, _Item]] = []
        self._claimed: set[bytes] = set()
        self._pause_until = 0.0
        self._turn = self._started = self._in_flight = self._failures = 0
        self._loops, self._is_over = 0, False

    def start(self) -> None:
        """Begin with all threads."""
        for number in range(self.wishes.parallel):
            with self._condition:
                self._loops += 1
            threading.Thread(target=self.loop, name=f"captions-{number}", daemon=True).start()

    def loop(self) -> None:
        """Caption until nothing is left; an error ends all threads."""
        try:
            while (item := self._take()) is not None:
                self._caption(item)
        except BaseException as error:
            self.stop(error)
        finally:
            with self._condition:
                self._loops -= 1
                self._condition.notify_all()

    def is_ended(self, seconds: float) -> bool:
        """Whether no thread is at work any more, looked at for so long."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._loops, seconds)

    def stop(self, error: BaseException | None) -> None:
        """Begin nothing more."""
        with self._condition:
            self._is_over = True
            self.error = self.error or error
            self._condition.notify_all()

    def _take(self) -> _Item | None:
        """The next picture, as soon as one may be tried; None when there will be none."""
        with self._condition:
            while not self._is_over:
                wait = self._pause_until - time.monotonic()
                item = self._next() if wait <= 0 else None
                if item is not None:
                    self._in_flight += 1
                    return item
                if wait <= 0 and not self._waiting:
                    if not self._in_flight:
                        return None
                    wait = _SLICE_S  # what others are at may come back
                elif wait <= 0:
                    wait = self._waiting[0][0] - time.monotonic()
                self._condition.wait(min(max(wait, 0.001), _SLICE_S))
            return None

    def _next(self) -> _Item | None:
        if self._waiting and self._waiting[0][0] <= time.monotonic():
            return heappop(self._waiting)[2]
        return next(self._fresh, None)

    def _items(self, names: Sequence[str]) -> Iterator[_Item]:
        """Those that are to be captioned; their files are read when their turn comes."""
        for name in names:
            if self.wishes.limit is not None and self._started >= self.wishes.limit:
                return
            stamp = _stamp(self._folder / name)
            digest = digest_of(self._folder / name)
            if digest is None or stamp is None:
                self.done.gone += 1
                continue
            if digest in self._claimed or self._is_had(digest):
                is_failed = self._ledger.is_failed(digest)
                self.done.failed += is_failed
                self.done.had += not is_failed
                self._tell(self.done, "")
                continue
            self._claimed.add(digest)
            self._started += 1
            yield _Item(name, digest, stamp)

    def _is_had(self, digest: bytes) -> bool:
        self._ledger.refresh()
        return self._ledger.is_had(digest, self.wishes.redo.get(digest))

    def _caption(self, item: _Item) -> None:
        path = self._folder / item.name
        try:
            self._ledger.check_budget()
            answer = self._captioner.caption(path)
        except Later as later:
            return self._put_off(item, later)
        except Unfit as unfit:
            return self._settle(item, Status.FAILED, Answer(caption=""), str(unfit))
        except Unusable as unusable:
            return self._settle(item, Status.UNUSABLE, unusable.answer, str(unusable))
        except StudioError as error:
            logger.info("stopped at %s: %s", item.name, error)
            raise
        if _stamp(path) != item.stamp:
            return self._settle(item, Status.UNUSABLE, answer, "the picture was changed meanwhile")
        return self._settle(item, Status.DONE, answer, "")

    def _settle(self, item: _Item, status: Status, answer: Answer, reason: str) -> None:
        row = Row(
            item.digest, item.name, status, answer.caption, reason, answer.by or self._captioner.name,
            self._captioner.template, now(), answer.prompt_tokens, answer.completion_tokens,
        )  # fmt: skip
        with self._condition:
            self._shard.add(row)  # before anything else is told of it: what is paid for is not lost
            self._ledger.add(row)
            self._in_flight -= 1
            self._failures = 0
            self.done.calls += 1
            self.done.made += status is Status.DONE
            self.done.failed += status is Status.FAILED
            self.done.unusable += status is Status.UNUSABLE
            if status is Status.UNUSABLE:
                self._ask_again(item)
            self._tell(self.done, "")
            self._condition.notify_all()

    def _ask_again(self, item: _Item) -> None:
        if _stamp(self._folder / item.name) != item.stamp:
            self.done.gone += 1
        elif self._ledger.num_unusable(item.digest) < MAX_UNUSABLE:
            self._again(item, 0.0)
        else:
            self.done.failed += 1

    def _put_off(self, item: _Item, later: Later) -> None:
        with self._condition:
            self._in_flight -= 1
            if later.is_for_all:
                self._pause(later, later.seconds or 0.0)
                self._again(item, later.seconds or 0.0)
            else:
                self._failures += 1
                if self._failures >= MAX_FAILURES:
                    raise CaptioningStopped(
                        f"{self._failures} attempts failed one after the other; the last: {later}",
                        "What was captioned is kept: run it again later.",
                    )
                self._park(item, later)
            self._condition.notify_all()

    def _park(self, item: _Item, later: Later) -> None:
        tried = _Item(item.name, item.digest, item.stamp, item.tries + 1)
        if tried.tries >= MAX_TRIES:
            self.done.parked.append((item.name, str(later)))
            self._claimed.discard(item.digest)
        else:
            usual = min(_MAX_BACKOFF_S, 2.0**item.tries) * random.uniform(0.5, 1.5)  # so that workers part again
            self._again(tried, usual if later.seconds is None else later.seconds)

    def _again(self, item: _Item, seconds: float) -> None:
        self._turn += 1
        heappush(self._waiting, (time.monotonic() + seconds, self._turn, item))

    def _pause(self, later: Later, seconds: float) -> None:
        if self.wishes.max_wait_s is not None and seconds > self.wishes.max_wait_s:
            raise CaptioningStopped(
                f"{later} It would be {seconds:,.0f} s until then, longer than is waited here.",
                "What was captioned is kept: run it again then, or give a larger --max-wait.",
            )
        until = time.monotonic() + seconds
        if seconds >= _TOLD_S and until > self._pause_until + 1:
            self._tell(self.done, f"{later} Waiting {seconds:,.0f} s.")
        self._pause_until = max(self._pause_until, until)


def _say_nothing(done: Done, told: str) -> None:
    """For those who do not ask how far it is."""


def _stamp(path: Path) -> tuple[int, int] | None:
    """What tells that a file was changed: its size, and when it was written."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
