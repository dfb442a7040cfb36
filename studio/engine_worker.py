"""The engine in a process of its own, seen from inside: `python -m studio.engine_worker`, started by
`studio.engine_process`, or an actor of Ray (`studio.ray_actor`).

Jobs run in one thread, one after the other; questions that must be answered at once have a thread of their own.
The process ends when the other end of its standard input does, whichever way that went.
"""

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from engines.base import ChosenAdapter, EngineState, Order, Picture, Start, Step
from engines.failures import is_device_lost
from studio.checkpoints import OwnCheckpoints
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.errors import JobCancelled, StudioError
from studio.domain.memory import MemoryPlan
from studio.domain.portable import portable
from studio.domain.request import ResolvedRequest
from studio.domain.scores import JudgeExam, Score
from studio.engine_messages import QUESTIONS, Answer, Call, Callback, Look, Stream
from studio.services import CATALOGUE_PATH, load_engine
from studio.settings import Settings

logger = logging.getLogger(__name__)

LOST_DEVICE = 70
"""Exit status after an error that leaves the GPU unusable for this process."""
_OOM_SCORE = "500"
"""Where the system runs out of memory, Linux should end this process rather than the page, or a browser."""


class Incoming(Protocol):
    """Where the parent's messages come from."""

    def receive(self) -> Any:
        """The next one, waited for; raises where there will be none."""
        ...


class Outgoing(Protocol):
    """Where messages to the parent go."""

    def send(self, message: object) -> None:
        """Hand one over; raises OSError or ValueError where nobody takes it any more."""
        ...


class Worker:
    """Serves one parent until it goes away."""

    def __init__(self, settings: Settings, incoming: Incoming, outgoing: Outgoing) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._catalogue = Catalogue.load(CATALOGUE_PATH)
        self._shipped = frozenset(row.id for row in self._catalogue.rows)
        self._own = OwnCheckpoints(settings.models_dir, self._catalogue)
        self._engine = load_engine(settings, self._catalogue)
        self._jobs: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._questions: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[Answer | Look] = queue.SimpleQueue()
        self._goes_on = False

    def serve(self) -> None:
        """Answer calls for ever."""
        threading.Thread(target=self._read, name="messages", daemon=True).start()
        threading.Thread(target=self._answer_all, args=(self._questions,), name="questions", daemon=True).start()
        self._answer_all(self._jobs)

    def _read(self) -> None:
        try:
            while True:
                message = self._incoming.receive()
                if not isinstance(message, Call):
                    self._replies.put(message)
                elif message.method in QUESTIONS:
                    self._questions.put(message)
                else:
                    self._jobs.put(message)
        finally:
            os._exit(0)  # nobody is there any more for whom to finish anything

    def _answer_all(self, calls: "queue.SimpleQueue[Call]") -> None:
        while True:
            self._send(self._answer(calls.get()))

    def _answer(self, call: Call) -> Answer:
        try:
            return Answer(id=call.id, value=getattr(self, call.method)(call.id, *call.args))
        except (StudioError, JobCancelled) as error:
            return Answer(id=call.id, error=portable(error))
        except Exception as error:
            logger.exception("%s failed", call.method)
            if is_device_lost(error):
                os._exit(LOST_DEVICE)  # no call in this process would succeed again
            return Answer(id=call.id, error=portable(error))

    def _send(self, message: object) -> None:
        try:
            self._outgoing.send(message)
        except (OSError, ValueError):  # the parent is gone; the reader may not have noticed yet
            os._exit(0)

    def state(self, call_id: int = 0) -> EngineState:
        """How its engine stands."""
        return self._engine.state()

    def free_bytes(self, call_id: int) -> int:
        return self._engine.free_bytes()

    def plan(self, call_id: int, request: ResolvedRequest) -> MemoryPlan:
        self._look_for(request.checkpoint)
        return self._engine.plan(request)

    def preload(self, call_id: int, checkpoint: Checkpoint) -> None:
        self._look_for(checkpoint.id)
        self._engine.preload(checkpoint)

    def preload_judge(self, call_id: int, judge: Path) -> None:
        self._engine.preload_judge(judge)

    def examine(self, call_id: int, judge: Path) -> JudgeExam:
        return self._engine.examine(judge)

    def score(self, call_id: int, judge: Path, picture: Path, text: str) -> Score:
        return self._engine.score(judge, picture, text)

    def score_texts(self, call_id: int, judge: Path, picture: Path, texts: tuple[str, ...]) -> tuple[Score, ...]:
        return self._engine.score_texts(judge, picture, texts)

    def embed(self, call_id: int, judge: Path, picture: Path) -> tuple[float, ...]:
        return self._engine.embed(judge, picture)

    def generate(
        self,
        call_id: int,
        request: ResolvedRequest,
        prompts: tuple[str, str],
        adapters: tuple[ChosenAdapter, ...],
        timesteps: tuple[int, ...] | None,
        start: Start | None,
    ) -> Picture:
        self._look_for(request.checkpoint)
        return self._engine.generate(
            request,
            prompts,
            adapters,
            timesteps=timesteps,
            start=start,
            **self._callbacks(call_id),
        )

    def most_at_once(self, call_id: int, request: ResolvedRequest) -> int:
        self._look_for(request.checkpoint)
        return self._engine.most_at_once(request)

    def generate_batch(
        self,
        call_id: int,
        orders: tuple[Order, ...],
        adapters: tuple[ChosenAdapter, ...],
        timesteps: tuple[int, ...] | None,
    ) -> list[Picture]:
        self._look_for(orders[0].request.checkpoint)
        return self._engine.generate_batch(
            orders,
            adapters,
            timesteps=timesteps,
            **self._callbacks(call_id),
        )

    def _callbacks(self, call_id: int) -> dict[str, Callable[..., Any]]:
        """What drawing calls back, and who waits for it on the other side."""
        self._goes_on = False
        return {
            "cancelled": partial(self._cancelled, call_id),
            "on_step": partial(self._on_step, call_id),
            "on_fetch": partial(self._call_back, call_id, "on_fetch"),
        }

    def _call_back(self, call_id: int, name: str, *args: object) -> Any:
        self._send(Callback(id=call_id, name=name, args=args))
        reply = self._replies.get()
        assert isinstance(reply, Answer)
        return reply.unwrap()

    def _on_step(self, call_id: int, step: Step) -> None:
        self._send(Callback(id=call_id, name="on_step", args=(step.step, step.total, step.place)))
        while isinstance(reply := self._replies.get(), Look):
            self._send(_shown(call_id, step))
        if reply.unwrap():
            raise JobCancelled
        self._goes_on = True

    def _cancelled(self, call_id: int) -> bool:
        """Asked once between two steps: who heard of the last one has said that it goes on, and hears of this one."""
        goes_on, self._goes_on = self._goes_on, False
        return not goes_on and self._call_back(call_id, "cancelled")

    def _look_for(self, checkpoint_id: str) -> None:
        """The owner may have put a checkpoint into the models folder since this process began."""
        if checkpoint_id not in self._shipped:
            self._own.refresh()


def _shown(call_id: int, step: Step) -> Answer:
    try:
        return Answer(id=call_id, value=step.preview())
    except Exception as error:
        return Answer(id=call_id, error=portable(error))


def main() -> None:
    """Serve over the standard streams; whatever prints goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the page, which ends and takes this with it
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    outgoing = Stream(os.fdopen(os.dup(sys.stdout.fileno()), "wb"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    incoming = Stream(sys.stdin.buffer)
    hello: Call = incoming.receive()
    (settings,) = hello.args
    try:
        worker = Worker(settings, incoming, outgoing)
    except Exception as error:
        outgoing.send(Answer(id=hello.id, error=portable(error)))
        return
    outgoing.send(Answer(id=hello.id, value=worker.state()))
    worker.serve()


if __name__ == "__main__":
    main()
