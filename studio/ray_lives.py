"""An actor of Ray, seen from the page: the processes that it is, one after the other."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from studio.conversation import Conversation, ProcessGone
from studio.engine_messages import Answer
from studio.ray_actor import Beat

logger = logging.getLogger(__name__)

LINES = {"messages": 1, "tell": 1}
"""Threads of an actor, by what they carry: in each direction messages stay in order."""
_RETRY_S = 0.2
_PATIENCE_S = 5.0
"""How long an actor may take to end; it ends with the studio otherwise."""
_SILENT_LOOKS = 20
"""So many looks, of a second each, nothing was heard, not even a beat: the process is ended, or its machine is gone."""


class Life(Conversation):
    """One process of an actor, from its first beat to its end.

    Raises:
        ProcessGone: it ended before, or is not there yet.
        StudioError: there can be no engine, as it says.
    """

    def __init__(self, ray: Any, actor: Any) -> None:
        super().__init__()
        self._ray = ray
        self._actor = actor
        self._heard = 0
        self._end = ""
        self._messages = actor.messages.options(num_returns="streaming", concurrency_group="messages").remote()
        first = self._take()
        self.beat: Beat = first.unwrap() if isinstance(first, Answer) else first
        self.judges: set[str] = set()
        """The folders of those that it has looked with."""

    def follow(self) -> None:
        """Hand on what it says, to its end."""
        try:
            while True:
                message = self._take()
                self._heard += 1
                if isinstance(message, Beat):
                    self.beat = message
                else:
                    self._received(message)
        except ProcessGone as gone:
            self._end = str(gone)
        finally:
            self._ended()

    def knows(self, what: str) -> bool:
        """Whether that checkpoint or judge is in its memory, as far as is known here."""
        return what in self.beat.state.loaded or what in self.judges

    def kill(self) -> None:
        """End the process; Ray begins another one."""
        if self.beat.node == self._ray.get_runtime_context().get_node_id():
            with suppress(ProcessLookupError):
                os.kill(self.beat.pid, signal.SIGKILL)  # one that is suspended hears nothing from Ray
        else:
            self._ray.kill(self._actor, no_restart=False)

    def _take(self) -> Any:
        try:
            return self._ray.get(next(self._messages))
        except StopIteration:
            raise ProcessGone("said no more") from None
        except self._ray.exceptions.RayError as error:
            raise ProcessGone(f"was lost ({type(error).__name__})") from error

    def _deliver(self, message: object) -> None:
        self._actor.tell.options(concurrency_group="tell").remote(self.beat.life, message)

    def _how_it_ended(self) -> str:
        return self._end

    def _watch(self) -> Callable[[], None]:
        heard, silent = self._heard, 0

        def look() -> None:
            nonlocal heard, silent
            silent = silent + 1 if self._heard == heard else 0
            heard = self._heard
            if silent == _SILENT_LOOKS:
                logger.warning("an actor has said nothing for %d s; it is ended", silent)
                self.kill()

        return look


class Lives:
    """An actor for as long as it is wanted: its process is followed, and the next one when that is gone."""

    def __init__(self, ray: Any, make: Callable[[], Any], on_change: Callable[[], None]) -> None:
        self.now: Life | None = None
        self.problem: Exception | None = None
        """Why there can be no engine in it."""
        self.is_busy = False
        self.thread = 0
        """The thread that had it last: a job's pictures are best made by one actor, as far as that is free."""
        self._ray = ray
        self._make = make
        self._on_change = on_change
        self._actor = make()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="actor-messages", daemon=True)
        self._keeper.start()

    def close(self) -> None:
        """End it for good."""
        self._closing.set()
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor)
            if life := self.now:
                life.kill()  # Ray asks the process to end, and one that is in the middle of something may not
        self._keeper.join(_PATIENCE_S)

    def _keep(self) -> None:
        while not self._closing.is_set():
            try:
                life = Life(self._ray, self._actor)
            except ProcessGone as gone:
                if not self._closing.wait(_RETRY_S) and isinstance(gone.__cause__, self._ray.exceptions.ActorDiedError):
                    self._actor = self._make()  # Ray will not begin that one again: somebody ended it
                continue
            except Exception as error:
                self.problem = error
                self._on_change()
                return
            self.now = life
            self._on_change()
            life.follow()
            self.now = None
            self._on_change()
