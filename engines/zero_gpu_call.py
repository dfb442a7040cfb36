"""The one function that computes on the GPU of a ZeroGPU Space: what goes into it, and what comes out on the way.

The package `spaces`, which Hugging Face installs there, runs it in a fork of this process that has a GPU for a while.
What it is given and what it yields is pickled; nothing else goes in but that the generator is closed. Everywhere else
it is an ordinary generator. Light to import, but for `spaces` on ZeroGPU, which has to come before torch.
"""

import importlib
import logging
import queue
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from engines.base import Step
from studio.domain.catalogue import Checkpoint
from studio.domain.errors import JobCancelled, NotFound, StudioError
from studio.domain.hosting import ZERO_GPU, is_zero_gpu
from studio.domain.portable import portable

logger = logging.getLogger(__name__)

BEAT_S = 0.25
"""How long the fork is silent at most: only between two messages does it see that it is to stop."""
_PREVIEW_SHARE = 0.1
"""Part of the time that previews may take; the first of each picture is always made."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What is to be computed: by which engine, in how many seconds at most, and where somebody leaves word that they
    look. `checkpoint` is the row of what draws, which a fork of earlier may not know."""

    engine: int
    method: Literal["generate", "generate_batch"]
    args: tuple[Any, ...]
    options: dict[str, Any]
    checkpoint: Checkpoint
    seconds: int
    watched: Path


@dataclass(frozen=True, kw_only=True)
class Beat:
    """Nothing has happened."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A `Step`, and with some of them the picture so far."""

    step: int
    total: int
    place: int
    preview: Image.Image | None


@dataclass(frozen=True, kw_only=True)
class Done:
    """The end: what `method` gave."""

    value: Any


@dataclass(frozen=True, kw_only=True)
class Broken:
    """The end: what `method` raised. Of an error that leaves the function, `spaces` hands on only the name."""

    error: Exception


Message = Beat | Told | Done | Broken
OnGpu = Callable[[Call], Generator[Message, None, None]]


class Computer(Protocol):
    """An engine, as it is seen from inside the fork."""

    def compute(self, call: Call, cancelled: Callable[[], bool], on_step: Callable[[Step], None]) -> Any:
        """What the call asks for."""
        ...


_computers: "weakref.WeakValueDictionary[int, Computer]" = weakref.WeakValueDictionary()
"""The engines of this process. A fork has them too, which is the only way for one to get there."""


def register(computer: Computer) -> int:
    """Let calls find `computer`; gives what they name it by."""
    key = id(computer)
    _computers[key] = computer
    return key


def computed(call: Call) -> Generator[Message, None, None]:
    """Compute, and tell of it: beats, steps, and the end. Who closes it ends the work within a step."""
    told: queue.SimpleQueue[Message] = queue.SimpleQueue()
    stop = threading.Event()
    work = threading.Thread(target=_work, args=(call, told.put, stop.is_set), name="drawing", daemon=True)
    work.start()
    try:
        while True:
            message = _next(told)
            yield message
            if isinstance(message, Done | Broken):
                return
    finally:
        stop.set()
        work.join()


def _next(told: "queue.SimpleQueue[Message]") -> Message:
    try:
        return told.get(timeout=BEAT_S)
    except queue.Empty:
        return Beat()


def _work(call: Call, tell: Callable[[Message], None], cancelled: Callable[[], bool]) -> None:
    previews = _Previews(call.watched)

    def on_step(step: Step) -> None:
        tell(Told(step=step.step, total=step.total, place=step.place, preview=previews.of(step)))

    try:
        tell(Done(value=_computers[call.engine].compute(call, cancelled, on_step)))
    except (StudioError, JobCancelled) as error:
        tell(Broken(error=portable(error)))
    except Exception as error:
        logger.error("%s failed on the GPU\n%s", call.method, traceback.format_exc())
        tell(Broken(error=portable(error)))


class _Previews:
    """Makes previews where they are wanted: of a picture's first step, and of later ones while somebody looks, as
    often as `_PREVIEW_SHARE` of the time allows."""

    def __init__(self, watched: Path) -> None:
        self._watched = watched
        self._started = time.monotonic()
        self._spent = 0.0
        self._is_due = False

    def of(self, step: Step) -> Image.Image | None:
        """The picture so far; None where it is not to be shown. Of a batch all are shown at the same steps."""
        began = time.monotonic()
        if step.place == 0:
            has_time = self._spent <= _PREVIEW_SHARE * (began - self._started)
            self._is_due = step.step == 1 or (has_time and self._watched.exists())
        if not self._is_due:
            return None
        preview = step.preview()
        self._spent += time.monotonic() - began
        return preview


def seconds_of(call: Call) -> int:
    """For how long a GPU is asked for; `spaces` gives it what it gives the function."""
    return call.seconds


def _decorator() -> Callable[[OnGpu], OnGpu]:
    if not is_zero_gpu():
        return lambda function: function
    try:
        spaces: Any = importlib.import_module("spaces")
    except ImportError:
        raise NotFound(
            f"{ZERO_GPU} is set, and the package spaces, which a Space with ZeroGPU needs, is not installed.",
            "Add spaces to requirements.txt, or choose other hardware for this Space.",
        ) from None
    return spaces.GPU(duration=seconds_of)


@_decorator()
def on_gpu(call: Call) -> Generator[Message, None, None]:
    """`computed` where there is a GPU. `spaces` looks for such functions when the page is put up, so this one is made
    as the module is imported."""
    yield from computed(call)
