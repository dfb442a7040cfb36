"""Engines on several machines: actors of Ray, each with an engine of its own, that look like one from the page.

The line, the gallery and whatever else is kept stay in the page's process. An actor draws and keeps nothing: what is
lost with one is the time that it had spent on a picture, which is begun again.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engines.base import EngineState, Order, never
from studio.conversation import ProcessGone
from studio.domain.catalogue import Checkpoint
from studio.domain.errors import GenerationFailed, JobCancelled
from studio.domain.request import ResolvedRequest
from studio.engine_messages import QUESTIONS
from studio.ray_actor import EngineActor
from studio.ray_cluster import is_joined, join_cluster
from studio.ray_lives import LINES, Life, Lives
from studio.remote_engine import RemoteEngine
from studio.settings import Settings

logger = logging.getLogger(__name__)

START_S = 180.0
"""How long it is waited where no actor is there at all."""
PRELOAD_S = 30.0
"""How long it is waited for all of them, to load ahead what will be asked for."""
_LOOK_S = 0.5
_SECRETS = ("password", "database_url", "c2pa_certificate", "c2pa_key")
"""Settings that stay in the page's process."""


@dataclass(frozen=True, kw_only=True)
class ActorView:
    """An actor that is there: its process, on the node of Ray's that has this id."""

    node: str
    pid: int
    is_busy: bool
    loaded: tuple[str, ...]


class RayEngines(RemoteEngine):
    """An `Engine` over as many actors as the settings say. Each call goes to one that is free, and has the checkpoint
    or judge in memory if one does.

    Raises:
        NotFound: Ray is not installed here, or its cluster cannot be joined.
        StudioError: the engine cannot be had under these settings.
        GenerationFailed: no actor was there in time.
    """

    def __init__(self, settings: Settings) -> None:
        self._is_ours = not is_joined()
        self._ray = join_cluster(settings.ray_address, max(os.cpu_count() or 1, settings.ray_workers))
        self._is_closed = False
        self._changed = threading.Condition()
        needs = {"max_restarts": -1, "scheduling_strategy": "SPREAD", **_needs(self._ray, settings)}
        actor = self._ray.remote(concurrency_groups=LINES, **needs)(EngineActor)
        make = partial(actor.remote, _for_actors(settings))
        self._actors = [Lives(self._ray, make, self._news) for _ in range(settings.ray_workers)]
        try:
            _, first = self._chosen("", never, self._actors, is_question=True)
        except BaseException:
            self.close()
            raise
        self._first_state = first.beat.state

    @property
    def actors(self) -> tuple[ActorView, ...]:
        """Those that are there now."""
        there = ((actor, life.beat) for actor in self._actors if (life := actor.now))
        return tuple(
            ActorView(node=beat.node, pid=beat.pid, is_busy=actor.is_busy, loaded=beat.state.loaded)
            for actor, beat in there
        )

    def state(self) -> EngineState:
        """See `engines.base.Engine.state`: what any of them has loaded. Asks nobody."""
        loaded = dict.fromkeys(name for actor in self.actors for name in actor.loaded)
        first = self._first_state
        return EngineState(device=first.device, dtype=first.dtype, loaded=tuple(loaded))

    def free_bytes(self) -> int:
        """See `engines.base.Engine.free_bytes`: that of this machine, where an actor is on it."""
        node = self._ray.get_runtime_context().get_node_id()
        here = [actor for actor in self._actors if (life := actor.now) and life.beat.node == node]
        return self._do("free_bytes", (), {}, here)

    def preload(self, checkpoint: Checkpoint) -> None:
        """See `engines.base.Engine.preload`: one after the other, so that the others can draw meanwhile. Such as have
        no room in the cluster are not waited for."""
        with self._changed:
            self._changed.wait_for(lambda: all(actor.now for actor in self._actors), PRELOAD_S)
        for actor in self._actors:
            if actor.now:
                self._do("preload", (checkpoint,), {}, [actor])

    def close(self) -> None:
        """End the actors, and leave the cluster if it was joined for them; one of our own ends with that."""
        self._is_closed = True
        for actor in self._actors:
            actor.close()
        if self._is_ours:
            self._ray.shutdown()

    def _do(
        self,
        method: str,
        args: tuple[Any, ...],
        callbacks: Mapping[str, Callable[..., Any]],
        among: Sequence[Lives] = (),
    ) -> Any:
        """What an actor `among` those, or any, answers."""
        what, cancelled = _wanted(args), callbacks.get("cancelled", never)
        end = ""
        for _ in range(2):
            with self._lent(what, cancelled, among or self._actors, is_question=method in QUESTIONS) as life:
                try:
                    answer = life.call(method, args, callbacks)
                    life.judges |= {what} if args and isinstance(args[0], Path) else set()
                    return answer
                except ProcessGone as gone:
                    end = str(gone)
                    logger.warning("an actor %s during %s, which is begun again", gone, method)
        raise _hopeless(f"{end}, twice in a row")

    @contextmanager
    def _lent(
        self, what: str, cancelled: Callable[[], bool], among: Sequence[Lives], *, is_question: bool
    ) -> Generator[Life]:
        """An actor that does nothing else meanwhile, but for answering questions."""
        actor, life = self._chosen(what, cancelled, among, is_question=is_question)
        try:
            yield life
        finally:
            if not is_question:
                with self._changed:
                    actor.is_busy = False
                    self._changed.notify_all()

    def _chosen(
        self, what: str, cancelled: Callable[[], bool], among: Sequence[Lives], *, is_question: bool
    ) -> tuple[Lives, Life]:
        """The best one, waited for: one that has in memory `what` is wanted, then the one that this thread had last."""
        thread, given_up_at = threading.get_ident(), time.monotonic() + START_S
        with self._changed:
            while not self._is_closed:
                there = [(actor, life) for actor in among if (life := actor.now)]
                free = [(actor, life) for actor, life in there if is_question or not actor.is_busy]
                if free:
                    best = min(free, key=lambda each: (not each[1].knows(what), each[0].thread != thread))
                    if not is_question:
                        best[0].is_busy, best[0].thread = True, thread
                    return best
                given_up_at = time.monotonic() + START_S if there else given_up_at
                _check(among, given_up_at)
                self._changed.wait(_LOOK_S)
                if cancelled():
                    raise JobCancelled
        raise JobCancelled  # it was closed

    def _news(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _check(actors: Sequence[Lives], given_up_at: float) -> None:
    """Refuse to wait on for actors that cannot be there, or were not in time."""
    problems = [actor.problem for actor in actors if actor.problem is not None]
    if len(problems) == len(actors):
        raise problems[0]
    if time.monotonic() > given_up_at:
        raise _hopeless(f"was not there after {START_S:.0f} s")


def _hopeless(end: str) -> GenerationFailed:
    return GenerationFailed(
        f"The actor that draws {end}; the log says more.",
        "If memory was short, ask for a smaller picture; if a machine or its GPU failed, see to it, or set "
        "FLASH_STUDIO_RAY_WORKERS=0 to draw on this one.",
    )


def _needs(ray: Any, settings: Settings) -> dict[str, int]:
    """What an actor takes of the cluster: a GPU where there are any, else its share of the processors."""
    there = ray.cluster_resources()
    if settings.device in ("auto", "cuda") and there.get("GPU", 0) >= 1:
        return {"num_gpus": 1, "num_cpus": 1}
    largest = max(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"])
    return {"num_cpus": max(1, int(min(largest, there.get("CPU", 1) // settings.ray_workers)))}


def _for_actors(settings: Settings) -> Settings:
    """What they need to know: folders by their full names, and nothing that is a secret."""
    unsaid = dict.fromkeys(_SECRETS, "")
    return settings.model_copy(update={**unsaid, "data_dir": settings.data_dir.resolve(), "ray_workers": 0})


def _wanted(args: tuple[Any, ...]) -> str:
    """The checkpoint or judge that a call is about; "" for none."""
    match args:
        case (ResolvedRequest(checkpoint=name), *_) | ((Order(request=ResolvedRequest(checkpoint=name)), *_), *_):
            return name
        case (Checkpoint(id=name), *_):
            return name
        case (Path() as judge, *_):
            return str(judge)
        case _:
            return ""
