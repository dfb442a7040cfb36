"""The engine in a process of its own, seen from the page: what kills the one does not touch the other.

A driver that loses the GPU, a library that crashes, a system out of memory: each takes the process that it happens in
along. The page stays, the engine is started anew, and what it was doing is done once more.
"""

import itertools
import logging
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from engines.base import ChosenAdapter, EngineState, OnFetch, Order, Picture, Start, Step, unheard
from studio.domain.catalogue import Checkpoint
from studio.domain.errors import GenerationFailed
from studio.domain.memory import MemoryPlan
from studio.domain.portable import portable
from studio.domain.request import ResolvedRequest
from studio.domain.scores import JudgeExam, Score
from studio.engine_messages import Answer, Call, Callback, Look, Stream
from studio.processes import child_environment
from studio.settings import Settings

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "studio.engine_worker")
_LOOK_S = 1.0
_SUSPENDED_S = 5.0
"""A process that somebody suspended for so long, and not this one with it, is ended: nobody may go on with it."""
_Message = Answer | Callback


class ProcessGone(Exception):
    """The engine's process ended before it answered."""


class EngineProcess:
    """An `Engine` whose work another process does.

    Raises:
        StudioError: the engine cannot be had under these settings.
        GenerationFailed: its process ends as soon as it is started.
    """

    def __init__(self, settings: Settings, command: Sequence[str] = COMMAND) -> None:
        self._settings = settings
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._child = self._start()

    @property
    def pid(self) -> int:
        """Of the process that computes now."""
        return self._child.pid

    def state(self) -> EngineState:
        """See `engines.base.Engine.state`; between two processes nothing is loaded."""
        child = self._child
        try:
            return child.call("state", (), {})
        except ProcessGone:
            return child.first_state

    def free_bytes(self) -> int:
        """See `engines.base.Engine.free_bytes`."""
        return self._do("free_bytes", (), {})

    def plan(self, request: ResolvedRequest) -> MemoryPlan:
        """See `engines.base.Engine.plan`."""
        return self._do("plan", (request,), {})

    def preload(self, checkpoint: Checkpoint) -> None:
        """See `engines.base.Engine.preload`."""
        self._do("preload", (checkpoint,), {})

    def preload_judge(self, judge: Path) -> None:
        """See `engines.base.Engine.preload_judge`."""
        self._do("preload_judge", (judge,), {})

    def examine(self, judge: Path) -> JudgeExam:
        """See `engines.base.Engine.examine`."""
        return self._do("examine", (judge,), {})

    def score(self, judge: Path, picture: Path, text: str) -> Score:
        """See `engines.base.Engine.score`."""
        return self._do("score", (judge, picture, text), {})

    def score_texts(self, judge: Path, picture: Path, texts: Sequence[str]) -> tuple[Score, ...]:
        """See `engines.base.Engine.score_texts`."""
        return self._do("score_texts", (judge, picture, tuple(texts)), {})

    def embed(self, judge: Path, picture: Path) -> tuple[float, ...]:
        """See `engines.base.Engine.embed`."""
        return self._do("embed", (judge, picture), {})

    def generate(
        self,
        request: ResolvedRequest,
        prompts: tuple[str, str],
        adapters: Sequence[ChosenAdapter] = (),
        *,
        timesteps: tuple[int, ...] | None = None,
        start: Start | None = None,
        cancelled: Callable[[], bool],
        on_step: Callable[[Step], None],
        on_fetch: OnFetch = unheard,
    ) -> Picture:
        """See `engines.base.Engine.generate`. A process that ends on the way is started anew, once, and the picture
        begun again.

        Raises:
            GenerationFailed: the process ended twice.
        """
        callbacks = {"cancelled": cancelled, "on_step": on_step, "on_fetch": on_fetch}
        return self._do("generate", (request, prompts, tuple(adapters), timesteps, start), callbacks)

    def most_at_once(self, request: ResolvedRequest) -> int:
        """See `engines.base.Engine.most_at_once`."""
        return self._do("most_at_once", (request,), {})

    def generate_batch(
        self,
        orders: Sequence[Order],
        adapters: Sequence[ChosenAdapter] = (),
        *,
        timesteps: tuple[int, ...] | None = None,
        cancelled: Callable[[], bool],
        on_step: Callable[[Step], None],
        on_fetch: OnFetch = unheard,
    ) -> list[Picture]:
        """See `engines.base.Engine.generate_batch`, and `generate` about a process that ends on the way."""
        callbacks = {"cancelled": cancelled, "on_step": on_step, "on_fetch": on_fetch}
        return self._do("generate_batch", (tuple(orders), tuple(adapters), timesteps), callbacks)

    def close(self) -> None:
        """End the process. One that is not closed ends with this process."""
        self._child.end()

    def _do(self, method: str, args: tuple[Any, ...], callbacks: Mapping[str, Callable[..., Any]]) -> Any:
        try:
            return self._living().call(method, args, callbacks)
        except ProcessGone as gone:
            logger.warning("the engine's process %s during %s; it is started anew", gone, method)
        try:
            return self._living().call(method, args, callbacks)
        except ProcessGone as gone:
            raise _hopeless(f"{gone}, twice in a row") from None

    def _living(self) -> "_Child":
        with self._lock:
            if self._child.is_gone:
                self._child = self._start()
            return self._child

    def _start(self) -> "_Child":
        try:
            return _Child(self._command, self._settings)
        except ProcessGone as gone:
            raise _hopeless(f"{gone} before it was ready") from None


def _hopeless(end: str) -> GenerationFailed:
    return GenerationFailed(
        f"The process that draws {end}; the log says more.",
        "If memory was short, ask for a smaller picture or close other programs; if the GPU failed, restart the "
        "machine or set FLASH_STUDIO_DEVICE=cpu.",
    )


class _Child:
    """One process, and who waits for its answers."""

    def __init__(self, command: Sequence[str], settings: Settings) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()
        )
        assert self._process.stdin and self._process.stdout
        self._outgoing, self._incoming = Stream(self._process.stdin), Stream(self._process.stdout)
        self._ids = itertools.count()
        self._waiting: dict[int, queue.SimpleQueue[_Message | None]] = {}
        self._lock = threading.Lock()
        self.is_gone = False
        self._reader = threading.Thread(target=self._read, name="engine-messages", daemon=True)
        self._reader.start()
        self.first_state: EngineState = self.call("hello", (settings,), {})

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, method: str, args: tuple[Any, ...], callbacks: Mapping[str, Callable[..., Any]]) -> Any:
        """What the engine answers; its callbacks are called from this thread.

        Raises:
            ProcessGone: it ended before.
            Exception: what the engine raises.
        """
        call_id, messages = next(self._ids), queue.SimpleQueue[_Message | None]()
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

    def end(self) -> None:
        self._process.kill()
        self._reader.join()

    def _called_back(
        self,
        asked: Callback,
        callbacks: Mapping[str, Callable[..., Any]],
        messages: "queue.SimpleQueue[_Message | None]",
    ) -> Answer:
        args = asked.args
        if asked.name == "on_step":
            step, total, place = args
            args = (Step(step=step, total=total, preview=partial(self._preview, messages), place=place),)
        try:
            return Answer(id=asked.id, value=callbacks[asked.name](*args))
        except ProcessGone:
            raise
        except Exception as error:  # raised there, where it ends the work, it comes back from there
            return Answer(id=asked.id, error=portable(error))

    def _preview(self, messages: "queue.SimpleQueue[_Message | None]") -> Image.Image:
        self._send(Look())
        shown = self._next(messages)
        assert isinstance(shown, Answer)
        return shown.unwrap()

    def _send(self, message: object) -> None:
        try:
            self._outgoing.send(message)
        except (OSError, ValueError):
            raise ProcessGone(self._how_it_ended()) from None

    def _next(self, messages: "queue.SimpleQueue[_Message | None]") -> _Message:
        suspended_at: float | None = None
        while True:
            try:
                message = messages.get(timeout=_LOOK_S)
            except queue.Empty:
                now = time.monotonic()
                suspended_at = (suspended_at or now) if self._is_suspended() else None
                if suspended_at is not None and now - suspended_at >= _SUSPENDED_S:
                    logger.warning(
                        "the engine's process has been suspended for %.0f s; it is ended", now - suspended_at
                    )
                    self._process.kill()  # the reader notices, and tells everybody who waits
                continue
            if message is None:
                raise ProcessGone(self._how_it_ended())
            return message

    def _is_suspended(self) -> bool:
        try:
            return psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False

    def _read(self) -> None:
        try:
            while True:
                message: _Message = self._incoming.receive()
                if messages := self._waiting.get(message.id):
                    messages.put(message)
        except (EOFError, OSError, pickle.UnpicklingError):
            with self._lock:
                self.is_gone = True
                for messages in self._waiting.values():
                    messages.put(None)
            self._process.wait()
            self._incoming.close()
            self._outgoing.close()

    def _how_it_ended(self) -> str:
        status = self._process.wait()
        return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
