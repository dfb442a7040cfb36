"""The engine on a Space with ZeroGPU: weights wait in this process, and pictures are drawn in a fork that has a GPU."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from engines.base import ChosenAdapter, Engine, EngineState, OnFetch, Order, Picture, Start, Step, never, unheard
from engines.zero_gpu_call import Broken, Call, Done, Message, OnGpu, Told, on_gpu, register
from engines.zero_gpu_refusals import refused
from engines.zero_gpu_time import seconds_asked
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.errors import GenerationFailed, JobCancelled
from studio.domain.memory import MemoryPlan
from studio.domain.request import ResolvedRequest
from studio.domain.scores import JudgeExam, Score


class WaitingEngine(Engine, Protocol):
    """An engine whose weights wait until its device is there; `StableDiffusionEngine` over a pool with a home."""

    def make_ready(self, checkpoint: Checkpoint, cancelled: Callable[[], bool], on_fetch: OnFetch) -> int:
        """Load `checkpoint` and what its pictures need, without the device; gives the bytes of its weights."""
        ...

    def arrive(self) -> None:
        """From here on the device is there."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What is to be computed, of pictures like that of `request`; the adapters are the last of `args`."""

    method: Literal["generate", "generate_batch"]
    args: tuple[Any, ...]
    request: ResolvedRequest
    num_pictures: int = 1


@dataclass(frozen=True, kw_only=True)
class _Watchers:
    """Who is told and asked on the way, in this process."""

    cancelled: Callable[[], bool]
    on_step: Callable[[Step], None]
    on_fetch: OnFetch


class ZeroGpuEngine:
    """An `Engine` whose pictures another one draws, in a fork of this process.

    What takes long and needs no GPU happens before one is asked for: weights are fetched and read here, and the fork
    takes its copy to the GPU. What it adds to them, such as adapters, goes away with it. Judges compute on the CPU
    anyway, and so they do here.
    """

    def __init__(self, inner: WaitingEngine, catalogue: Catalogue, on_gpu: OnGpu = on_gpu) -> None:
        """`catalogue` is that of `inner`; `on_gpu` runs a `Call` where there is a GPU."""
        self._inner = inner
        self._catalogue = catalogue
        self._on_gpu = on_gpu
        self._loading = threading.Lock()
        self._key = register(self)
        self._pid = os.getpid()

    def state(self) -> EngineState:
        """See `engines.base.Engine.state`; loaded is what waits here."""
        return self._inner.state()

    def free_bytes(self) -> int:
        """See `engines.base.Engine.free_bytes`; of the GPU that a fork would have."""
        return self._inner.free_bytes()

    def plan(self, request: ResolvedRequest) -> MemoryPlan:
        """See `engines.base.Engine.plan`."""
        return self._inner.plan(request)

    def preload(self, checkpoint: Checkpoint) -> None:
        """See `engines.base.Engine.preload`."""
        with self._loading:
            self._inner.make_ready(checkpoint, never, unheard)

    def preload_judge(self, judge: Path) -> None:
        """See `engines.base.Engine.preload_judge`."""
        self._inner.preload_judge(judge)

    def examine(self, judge: Path) -> JudgeExam:
        """See `engines.base.Engine.examine`."""
        return self._inner.examine(judge)

    def score(self, judge: Path, picture: Path, text: str) -> Score:
        """See `engines.base.Engine.score`."""
        return self._inner.score(judge, picture, text)

    def score_texts(self, judge: Path, picture: Path, texts: Sequence[str]) -> tuple[Score, ...]:
        """See `engines.base.Engine.score_texts`."""
        return self._inner.score_texts(judge, picture, texts)

    def embed(self, judge: Path, picture: Path) -> tuple[float, ...]:
        """See `engines.base.Engine.embed`."""
        return self._inner.embed(judge, picture)

    def most_at_once(self, request: ResolvedRequest) -> int:
        """See `engines.base.Engine.most_at_once`."""
        return self._inner.most_at_once(request)

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
        """See `engines.base.Engine.generate`.

        Raises:
            RateLimited: whoever asks has no GPU time left.
            QueueFull: no GPU is free.
            GenerationFailed: it was taken away before the picture was finished.
        """
        asked = _Asked(method="generate", args=(request, prompts, tuple(adapters)), request=request)
        watchers = _Watchers(cancelled=cancelled, on_step=on_step, on_fetch=on_fetch)
        return self._computed(asked, {"timesteps": timesteps, "start": start}, watchers)

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
        """See `engines.base.Engine.generate_batch`, and `generate`."""
        asked = _Asked(
            method="generate_batch",
            args=(tuple(orders), tuple(adapters)),
            request=orders[0].request,
            num_pictures=len(orders),
        )
        watchers = _Watchers(cancelled=cancelled, on_step=on_step, on_fetch=on_fetch)
        return self._computed(asked, {"timesteps": timesteps}, watchers)

    def compute(self, call: Call, cancelled: Callable[[], bool], on_step: Callable[[Step], None]) -> Any:
        """What the call asks for, in the process that this is called in: a fork that has a GPU."""
        if os.getpid() != self._pid:
            self._pid = os.getpid()
            self._inner.arrive()
        if call.checkpoint not in self._catalogue.checkpoints:  # put here since, and this fork is used again
            self._catalogue.set_own((call.checkpoint,))
        return getattr(self._inner, call.method)(*call.args, **call.options, cancelled=cancelled, on_step=on_step)

    def _computed(self, asked: _Asked, options: dict[str, Any], watchers: _Watchers) -> Any:
        checkpoint = self._catalogue.checkpoint(asked.request.checkpoint)
        with self._loading:
            weights = self._inner.make_ready(checkpoint, watchers.cancelled, watchers.on_fetch)
        if watchers.cancelled():  # before it costs anybody GPU time
            raise JobCancelled
        with tempfile.TemporaryDirectory(prefix="flash-studio-") as folder:
            call = Call(
                engine=self._key,
                method=asked.method,
                args=asked.args,
                options=options,
                checkpoint=checkpoint,
                seconds=seconds_asked(asked.request, weights, asked.num_pictures, len(asked.args[-1])),
                watched=Path(folder, "watched"),
            )
            return self._followed(call, watchers)

    def _followed(self, call: Call, watchers: _Watchers) -> Any:
        steps = _Steps(call.watched, watchers.on_step)
        end: Done | Broken | None = None
        with closing(self._on_gpu(call)) as messages:
            for message in self._begun(_said(messages)):
                if watchers.cancelled():
                    raise JobCancelled
                if isinstance(message, Told):
                    steps.tell(message)
                elif isinstance(message, Done | Broken):
                    end = message  # and on: the GPU is given back as the generator ends
        if isinstance(end, Broken):
            raise end.error
        if end is None:
            raise GenerationFailed("The GPU told of no picture.", "Try again.")
        return end.value

    def _begun(self, messages: Iterator[Message]) -> Iterator[Message]:
        """All of `messages`. Nothing is loaded here until the first of them is there: what another thread holds while
        a process is forked, the lock of a module that it imports for instance, is held in the fork for ever."""
        with self._loading:
            first = next(messages, None)
        if first is not None:
            yield first
        yield from messages


class _Steps:
    """Tells of steps here, with the last preview that came of each picture."""

    def __init__(self, watched: Path, on_step: Callable[[Step], None]) -> None:
        self._watched = watched
        self._on_step = on_step
        self._shown: dict[int, Image.Image] = {}

    def tell(self, told: Told) -> None:
        if told.preview is not None:
            self._shown[told.place] = told.preview
        preview = partial(self._preview, told.place)
        self._on_step(Step(step=told.step, total=told.total, preview=preview, place=told.place))

    def _preview(self, place: int) -> Image.Image:
        self._watched.touch()  # seen by the fork, whose files are the same
        return self._shown[place]


def _said(messages: Iterable[Message]) -> Iterator[Message]:
    """What comes of the fork, with the refusals of `spaces` in our words."""
    try:
        yield from messages
    except Exception as error:
        if told := refused(error):
            raise told from None
        raise
