"""Generators that run in a real fork, in the way of the package `spaces` on ZeroGPU: what goes in and what comes out is
pickled, the work has a thread of its own there, and closing the generator tells the fork to stop after its next yield.
"""

import os
import pickle
import select
import signal
import threading
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import IO, Any

import gradio as gr

PATIENCE_S = 120.0
"""A fork that hangs for so long is killed, and its test fails."""


@dataclass
class _Fork:
    pid: int
    calls: IO[bytes]
    answers: IO[bytes]
    stop: int


class Forks:
    """Makes functions run in forks: each call in a new one, or, where they are kept, all in the first."""

    def __init__(self, *, are_kept: bool = False) -> None:
        self._are_kept = are_kept
        self._kept: _Fork | None = None
        self.pids: list[int] = []
        """Of the fork of each call."""
        self.yielded = 0
        """How often the last call yielded in its fork, heard or not."""

    def run(self, function: Callable[[Any], Generator[Any, None, None]]) -> Callable[[Any], Generator[Any, None, None]]:
        """`function`, in a fork."""

        def there(argument: Any) -> Generator[Any, None, None]:
            fork = self._kept or _begun(function)
            self.pids.append(fork.pid)
            watchdog = threading.Timer(PATIENCE_S, os.kill, (fork.pid, signal.SIGKILL))
            watchdog.start()
            is_whole = False
            try:
                yield from self._follow(fork, argument)
                is_whole = True
            except GeneratorExit:
                os.write(fork.stop, b"s")
                self._drain(fork)
                is_whole = True
                raise
            finally:
                watchdog.cancel()
                self._kept = fork if self._are_kept and is_whole else None
                if self._kept is None:
                    _ended(fork)

        return there

    def close(self) -> None:
        """End the fork that is kept."""
        if self._kept is not None:
            _ended(self._kept)
            self._kept = None

    def _follow(self, fork: _Fork, argument: Any) -> Generator[Any, None, None]:
        fork.calls.write(pickle.dumps(argument))
        fork.calls.flush()
        while True:
            kind, value = _heard(fork)
            if kind == "end":
                self.yielded = value
                return
            if kind == "error":
                raise gr.Error(value, title="ZeroGPU worker error")
            yield value

    def _drain(self, fork: _Fork) -> None:
        kind = ""
        while kind != "end":
            kind, self.yielded = _heard(fork)


def _heard(fork: _Fork) -> tuple[str, Any]:
    try:
        return pickle.load(fork.answers)
    except EOFError:
        raise gr.Error("GPU task aborted", title="ZeroGPU worker error") from None


def _begun(function: Callable[[Any], Generator[Any, None, None]]) -> _Fork:
    (calls_in, calls_out), (answers_in, answers_out), (stop_in, stop_out) = os.pipe(), os.pipe(), os.pipe()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # there are other threads; that is it
        pid = os.fork()
    if pid == 0:
        try:
            for other in (calls_out, answers_in, stop_out):
                os.close(other)
            _serve(function, os.fdopen(calls_in, "rb"), os.fdopen(answers_out, "wb"), stop_in)
        finally:
            os._exit(0)
    for other in (calls_in, answers_out, stop_in):
        os.close(other)
    return _Fork(pid=pid, calls=os.fdopen(calls_out, "wb"), answers=os.fdopen(answers_in, "rb"), stop=stop_out)


def _ended(fork: _Fork) -> None:
    fork.calls.close()
    os.waitpid(fork.pid, 0)
    fork.answers.close()
    os.close(fork.stop)


def _serve(
    function: Callable[[Any], Generator[Any, None, None]], calls: IO[bytes], answers: IO[bytes], stop: int
) -> None:
    while True:
        try:
            argument = pickle.load(calls)
        except EOFError:
            return
        if _is_told(stop):  # meant for the work before, which had ended by then
            os.read(stop, 1)
        work = threading.Thread(target=_iterate, args=(function, argument, answers, stop))
        work.start()
        work.join()


def _is_told(stop: int) -> bool:
    return bool(select.select([stop], [], [], 0)[0])


def _iterate(
    function: Callable[[Any], Generator[Any, None, None]], argument: Any, answers: IO[bytes], stop: int
) -> None:
    def say(kind: str, value: Any) -> None:
        answers.write(pickle.dumps((kind, value)))
        answers.flush()

    generator, yielded = function(argument), 0
    while True:
        try:
            value = next(generator)
        except StopIteration:
            break
        except Exception as error:
            return say("error", type(error).__name__)
        yielded += 1
        if _is_told(stop):
            os.read(stop, 1)
            generator.close()
            break
        say("yield", value)
    return say("end", yielded)
