"""Makes pictures with Stable Diffusion pipelines: one picture at a time, watched at every step.

The families differ in what a prompt becomes (`conditioning`) and in data; the rest is the same for all.
"""

import logging
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engines.adapters import AdapterShelf
from engines.base import CHECKED, ChosenAdapter, EngineState, OnFetch, Order, Picture, Start, Step, never, unheard
from engines.devices import cpu_threads, dtype_name
from engines.failures import is_out_of_memory
from engines.judge_exam import examine
from engines.judges import JudgeShelf, opened
from engines.loading import Loaded
from engines.memory import release_memory
from engines.plans import Task, lighter, refusal
from engines.pool import PipelinePool
from engines.relief import relieved
from engines.safety import SafetyShelf
from engines.schedulers import build_scheduler
from engines.sharing import BATCHES, may_share
from engines.watch import Watch
from engines.work import Work
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.errors import GenerationFailed, JobCancelled
from studio.domain.memory import MemoryPlan
from studio.domain.request import ResolvedRequest
from studio.domain.scores import JudgeExam, Score

logger = logging.getLogger(__name__)
_FLAT = 1 / 255
"""Standard deviation in [0, 1] below which nothing can be seen."""


class StableDiffusionEngine:
    """An `Engine` over a pool of pipelines.

    Where it `is_exact`, pictures are made singly: batched arithmetic rounds differently, and a picture must not depend
    on its neighbours then.
    """

    def __init__(
        self, pool: PipelinePool, catalogue: Catalogue, safety: Path | None = None, *, is_exact: bool = True
    ) -> None:
        """`safety` is the folder of the checker that every picture has to pass; None for none."""
        self._safety = SafetyShelf(safety)
        self._pool = pool
        self._is_exact = is_exact
        self._catalogue = catalogue
        self._shelf = AdapterShelf()
        self._judges = JudgeShelf()

    def state(self) -> EngineState:
        """See `engines.base.Engine.state`."""
        return self._pool.state()

    def free_bytes(self) -> int:
        """See `engines.base.Engine.free_bytes`."""
        return self._pool.spare_bytes()

    def plan(self, request: ResolvedRequest) -> MemoryPlan:
        """See `engines.base.Engine.plan`."""
        checkpoint = self._catalogue.checkpoint(request.checkpoint)
        return self._pool.plan(checkpoint, self._task(checkpoint, request))

    def preload(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint ahead of the first request."""
        with self._pool.lease(checkpoint):
            pass

    def make_ready(
        self, checkpoint: Checkpoint, cancelled: Callable[[], bool] = never, on_fetch: OnFetch = unheard
    ) -> int:
        """Have in memory what pictures of `checkpoint` need, fetched before if it must be; gives the bytes of its
        weights. Raises as `generate`."""
        self._safety.prepare()
        with self._pool.lease(checkpoint, "resident", cancelled, on_fetch) as loaded:
            return loaded.num_bytes

    def arrive(self) -> None:
        """See `PipelinePool.arrive`."""
        self._pool.arrive()

    def preload_judge(self, judge: Path) -> None:
        """See `engines.base.Engine.preload_judge`."""
        self._judges.take(judge)

    def examine(self, judge: Path) -> JudgeExam:
        """See `engines.base.Engine.examine`."""
        taken = self._judges.take(judge)
        return examine(taken.id, lambda image, text: taken.score(image, text).cosine)

    def score(self, judge: Path, picture: Path, text: str) -> Score:
        """See `engines.base.Engine.score`."""
        return self._judges.take(judge).score(opened(picture), text)

    def score_texts(self, judge: Path, picture: Path, texts: Sequence[str]) -> tuple[Score, ...]:
        """See `engines.base.Engine.score_texts`."""
        return self._judges.take(judge).score_texts(opened(picture), texts)

    def embed(self, judge: Path, picture: Path) -> tuple[float, ...]:
        """See `engines.base.Engine.embed`."""
        return tuple(self._judges.take(judge).embed(opened(picture)).tolist())

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
        """Make the one picture of a `single` recipe; see `engines.base.Engine.generate`."""
        checkpoint = self._catalogue.checkpoint(request.checkpoint)
        task = self._task(checkpoint, request)
        plan = self._pool.plan(checkpoint, task)
        if not plan.fits:
            raise refusal(checkpoint.title, plan, task)
        self._safety.prepare()
        work = Work([Order(request=request, prompts=prompts)], timesteps, start)
        attempt = _Attempt(request, adapters, work, cancelled, self._safety.veiled(on_step), on_fetch)
        while True:
            try:
                return self._checked(self._make(checkpoint, attempt, plan)[0])
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                said = str(error)  # a log may keep what it is given, and an error all that its frames hold
                logger.warning("%s: out of memory (%s): %s", checkpoint.id, plan, said)
            # Behind the handler the error is gone, and with its traceback every tensor that it held on to.
            self._pool.keep_only(checkpoint)
            release_memory()
            below = lighter(plan, task)
            if below is None:
                raise refusal(checkpoint.title, plan, task)
            plan = below
            logger.warning("%s: tried again with %s", checkpoint.id, ", ".join(plan.savings))

    def most_at_once(self, request: ResolvedRequest) -> int:
        """See `engines.base.Engine.most_at_once`."""
        if self._is_exact or not may_share(request):
            return 1
        checkpoint = self._catalogue.checkpoint(request.checkpoint)
        task = self._task(checkpoint, request)
        alone = self._pool.plan(checkpoint, task)
        for number in BATCHES:
            plan = self._pool.plan(checkpoint, replace(task, num_pictures=number))
            if plan.fits and plan.savings == alone.savings:
                return number
        return 1

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
        request = orders[0].request
        checkpoint = self._catalogue.checkpoint(request.checkpoint)
        task = replace(self._task(checkpoint, request), num_pictures=len(orders))
        plan = self._pool.plan(checkpoint, task)
        if not plan.fits:
            raise refusal(checkpoint.title, plan, task)
        self._safety.prepare()
        work = Work(orders, timesteps)
        attempt = _Attempt(request, adapters, work, cancelled, self._safety.veiled(on_step), on_fetch)
        try:
            return [self._checked(picture) for picture in self._make(checkpoint, attempt, plan)]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("%s: out of memory with %d pictures at once", checkpoint.id, len(orders))
        release_memory()
        raise refusal(checkpoint.title, plan, task)

    def _checked(self, picture: Picture) -> Picture:
        if not self._safety.is_asked:
            return picture
        self._safety.check(picture.image)
        return replace(picture, environment=picture.environment | CHECKED)

    def _make(self, checkpoint: Checkpoint, attempt: "_Attempt", plan: MemoryPlan) -> list[Picture]:
        lease = self._pool.lease(checkpoint, plan.placement, attempt.cancelled, attempt.on_fetch)
        threads = 1 if checkpoint.is_pocket else None
        with lease as loaded, cpu_threads(threads), torch.inference_mode():
            pipeline, request = loaded.pipeline, attempt.request
            row = self._catalogue.scheduler(request.scheduler)
            pipeline.scheduler = build_scheduler(row, pipeline.scheduler.config, loaded.prediction_type)
            family = self._catalogue.family(checkpoint.family)
            watch = Watch(loaded, family, attempt.cancelled, attempt.on_step)
            if attempt.cancelled():
                raise JobCancelled
            adapters = self._shelf.take(attempt.adapters, loaded)
            with relieved(pipeline, plan):
                pixels = attempt.work.pixels(loaded, adapters, watch)
            together = {"batch": str(len(pixels))} if len(pixels) > 1 else {}
            environment = _environment(loaded, plan) | attempt.work.remarks() | together
            seconds = {name: round(value / len(pixels), 4) for name, value in watch.seconds().items()}
            memory = watch.peak_memory_mb()
            return [
                Picture(
                    image=attempt.work.composed(_to_image(each)),
                    seconds=seconds,
                    peak_memory_mb=memory,
                    environment=environment,
                )
                for each in pixels
            ]

    def _task(self, checkpoint: Checkpoint, request: ResolvedRequest) -> Task:
        return Task.of(request, self._pool.footprint(checkpoint, self._catalogue.family(checkpoint.family)))


class _Attempt:
    """What was asked of `generate`, and the work on it, which outlives a try that ran out of memory."""

    def __init__(
        self,
        request: ResolvedRequest,
        adapters: Sequence[ChosenAdapter],
        work: Work,
        cancelled: Callable[[], bool],
        on_step: Callable[[Step], None],
        on_fetch: OnFetch,
    ) -> None:
        self.request = request
        self.adapters = adapters
        self.work = work
        self.cancelled = cancelled
        self.on_step = on_step
        self.on_fetch = on_fetch


def _to_image(pixels: np.ndarray) -> Image.Image:
    """Turn `(H, W, 3)` in [0, 1] into an image, rounding as diffusers does; refuse what is no picture."""
    if pixels.max() == 0:
        raise GenerationFailed("The picture came out entirely black.", "Try float32, another sampler or another seed.")
    if pixels.reshape(-1, 3).std(axis=0).max() < _FLAT:
        raise GenerationFailed(
            "The picture came out in a single colour.", "Try another seed, more steps, or less guidance."
        )
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


@cache
def _versions() -> dict[str, str]:
    return {library: version(library) for library in ("torch", "diffusers", "transformers")}


def _environment(loaded: Loaded, plan: MemoryPlan) -> dict[str, str]:
    savings = {"memory": ", ".join(plan.savings)} if plan.savings else {}
    return {
        "device": str(loaded.device),
        "dtype": dtype_name(loaded.dtype),
        "checkpoint_sha256": loaded.sha256,
        **_versions(),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
        "attention": plan.attention,
        **savings,
    }
