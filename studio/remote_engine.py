"""An `Engine` whose work is done elsewhere: whatever is asked of it becomes a call by name."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.base import ChosenAdapter, EngineState, OnFetch, Order, Picture, Start, Step, unheard
from studio.domain.catalogue import Checkpoint
from studio.domain.memory import MemoryPlan
from studio.domain.request import ResolvedRequest
from studio.domain.scores import JudgeExam, Score


class RemoteEngine(ABC):
    """See `engines.base.Engine` for what each method promises. Where a process ends on the way, the call is made once
    more, in another one.

    Raises:
        GenerationFailed: processes ended twice in a row.
        JobCancelled: it was closed meanwhile.
    """

    @abstractmethod
    def _do(self, method: str, args: tuple[Any, ...], callbacks: Mapping[str, Callable[..., Any]]) -> Any:
        """What the engine elsewhere answers to a call."""

    @abstractmethod
    def state(self) -> EngineState:
        """See `engines.base.Engine.state`."""

    @abstractmethod
    def close(self) -> None:
        """End what computes. What is not closed ends with this process."""

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
        """See `engines.base.Engine.generate`."""
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
        """See `engines.base.Engine.generate_batch`."""
        callbacks = {"cancelled": cancelled, "on_step": on_step, "on_fetch": on_fetch}
        return self._do("generate_batch", (tuple(orders), tuple(adapters), timesteps), callbacks)
