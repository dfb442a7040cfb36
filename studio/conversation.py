"""What the page says with an engine elsewhere, call by call, in the messages of `studio.engine_messages`.

Calls may come from any number of threads. What the engine calls back is called in the thread that waits for its answer.
"""

import itertools
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from PIL import Image

from engines.base import Step
from studio.domain.portable import portable
from studio.engine_messages import Answer, Call, Callback, Look

_LOOK_S = 1.0
"""How often who waits looks whether the other side is well."""
_Message = Answer | Callback
_Messages = queue.SimpleQueue[_Message | None]


class ProcessGone(Exception):
    """The engine's process ended before it answered."""


class Conversation(ABC):
    """One process that computes, from its first word to its end, and who waits for its answers."""

    def __init__(self) -> None:
        self._ids = itertools.count()
        self._waiting: dict[int, _Messages] = {}
        self._lock = threading.Lock()
        self.is_gone = False

    def call(self, method: str, args: tuple[Any, ...], callbacks: Mapping[str, Callable[..., Any]]) -> Any:
        """What the engine answers; its callbacks are called from this thread.

        Raises:
            ProcessGone: it ended before.
            Exception: what the engine raises.
        """
        call_id, messages = next(self._ids), _Messages()
        with self._lock:
            if self.is_gone:
                raise ProcessGone(self._how_it_ended())
            self._waiting[call_id] = messages
        try:
            self._send(Call(id=call_id, method=method, args=args))
            while isinstance(message := self._next(messages), Callback):
                self._send(self._called_back(message, callbacks, messages))
            return message.unwrap()
        finally:
            self._waiting.pop(call_id, None)

    @abstractmethod
    def _deliver(self, message: object) -> None:
        """Hand `message` over. Raises OSError or ValueError where nobody takes it any more."""

    @abstractmethod
    def _how_it_ended(self) -> str:
        """What became of the process, as the end of a sentence about it."""

    @abstractmethod
    def _watch(self) -> Callable[[], None]:
        """For somebody who begins to wait: what to do every second."""

    def _received(self, message: _Message) -> None:
        """Hand on what came from the other side."""
        if messages := self._waiting.get(message.id):
            messages.put(message)

    def _ended(self) -> None:
        """Tell all who wait that nothing will come any more."""
        with self._lock:
            self.is_gone = True
            for messages in self._waiting.values():
                messages.put(None)

    def _called_back(self, asked: Callback, callbacks: Mapping[str, Callable[..., Any]], messages: _Messages) -> Answer:
        try:
            if asked.name != "on_step":
                return Answer(id=asked.id, value=callbacks[asked.name](*asked.args))
            step, total, place = asked.args
            preview = partial(self._preview, messages)
            callbacks["on_step"](Step(step=step, total=total, preview=preview, place=place))
            return Answer(id=asked.id, value=callbacks["cancelled"]())  # saves the question: the way may be long
        except ProcessGone:
            raise
        except Exception as error:  # raised there, where it ends the work, it comes back from there
            return Answer(id=asked.id, error=portable(error))

    def _preview(self, messages: _Messages) -> Image.Image:
        self._send(Look())
        shown = self._next(messages)
        assert isinstance(shown, Answer)
        return shown.unwrap()

    def _send(self, message: object) -> None:
        try:
            self._deliver(message)
        except (OSError, ValueError):
            raise ProcessGone(self._how_it_ended()) from None

    def _next(self, messages: _Messages) -> _Message:
        watch = self._watch()
        while True:
            try:
                message = messages.get(timeout=_LOOK_S)
            except queue.Empty:
                watch()
                continue
            if message is None:
                raise ProcessGone(self._how_it_ended())
            return message
