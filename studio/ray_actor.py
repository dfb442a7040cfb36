"""The engine as an actor of Ray, seen from inside: `engine_worker.Worker`, whose messages Ray carries."""

import os
import queue
import secrets
import threading
from collections.abc import Generator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from engines.base import EngineState
from studio.domain.portable import portable
from studio.engine_messages import Answer
from studio.engine_worker import Worker
from studio.settings import Settings

BEAT_S = 1.0
"""How often it says that it lives, in seconds, where it says nothing else."""


@dataclass(frozen=True, kw_only=True)
class Beat:
    """Actor to page: the process `pid` on the machine `node` lives, and how its engine stands. `life` is that process
    and no other, whatever became of it."""

    life: str
    node: str
    pid: int
    state: EngineState


class _Line:
    """Messages in one direction, for `Worker`."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def send(self, message: object) -> None:
        self._messages.put(message)

    def receive(self) -> Any:
        return self._messages.get()

    def next_within(self, seconds: float) -> Any:
        """The next one; None where none comes."""
        try:
            return self._messages.get(timeout=seconds)
        except queue.Empty:
            return None


class EngineActor:
    """One process that computes, for one page that listens."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._life = secrets.token_hex(8)
        self._incoming, self._outgoing = _Line(), _Line()
        self._is_heard = False

    def messages(self) -> Generator[object]:
        """Everything that the engine says, for as long as the page listens. First a `Beat`, or the error why there is
        no engine; then answers and callbacks, with a `Beat` before each answer and whenever there is nothing else."""
        if self._is_heard:  # the page lost us and is back: what it had asked for was begun again elsewhere
            os._exit(0)
        self._is_heard = True
        try:
            worker = Worker(self._settings, self._incoming, self._outgoing)
        except Exception as error:
            yield Answer(id=-1, error=portable(error))
            return
        threading.Thread(target=worker.serve, name="engine", daemon=True).start()
        yield self._beat(worker)
        while True:
            message = self._outgoing.next_within(BEAT_S)
            if message is None or isinstance(message, Answer):
                yield self._beat(worker)
            if message is not None:
                yield message

    def tell(self, life: str, message: object) -> None:
        """Hand the engine what the page says to this `life` of it; what was meant for an earlier one came too late."""
        if life == self._life:
            self._incoming.send(message)

    def _beat(self, worker: Worker) -> Beat:
        node = import_module("ray").get_runtime_context().get_node_id()
        return Beat(life=self._life, node=node, pid=os.getpid(), state=worker.state())
