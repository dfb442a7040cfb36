"""Pictures made at once: those of one job, and those of others who wait for the like. Where an engine says that this is
faster, a graphics card that draws four pictures takes hardly longer than with one, and nobody waits for it."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from engines.base import Engine, Order, Picture, Step
from engines.sharing import are_alike, may_share
from studio.additions import Additions
from studio.domain.errors import JobCancelled, StorageFailed, StudioError
from studio.domain.events import Drawing, Held
from studio.domain.images import ImageRecord
from studio.domain.request import ResolvedRequest
from studio.domain.tags import adapters_named
from studio.job import Job
from studio.jobs import JobRunner
from studio.step_reporter import StepReporter
from studio.tables import JobRow

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Undone:
    """A job, and its pictures that are still to be made, by their indexes."""

    job: Job
    request: ResolvedRequest
    left: list[int]
    reporter: StepReporter


class Drawer(Protocol):
    """What it needs of `GenerationService`."""

    def undone(self, job: Job) -> Undone: ...

    def recipe_of(self, payload: Mapping[str, Any]) -> ResolvedRequest: ...

    def single(self, request: ResolvedRequest, index: int) -> ResolvedRequest: ...

    def check_words(self, *prompts: str) -> None: ...

    def prompts(self, recipe: ResolvedRequest) -> tuple[str, str]: ...

    def finished(self, picture: Picture, recipe: ResolvedRequest) -> Picture: ...

    def keep(
        self, job: Job, recipe: ResolvedRequest, index: int, picture: Picture, meanwhile: Callable[[], None]
    ) -> ImageRecord: ...

    def summary(self, undone: Undone) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """One picture of a job."""

    of: Undone
    index: int
    recipe: ResolvedRequest


class Coalescing:
    """Makes what may be made together; of one job only, unless it `takes_along` those of others."""

    def __init__(self, runner: JobRunner, additions: Additions, drawer: Drawer, *, takes_along: bool = True) -> None:
        self._takes_along = takes_along
        self._runner = runner
        self._additions = additions
        self._drawer = drawer

    def draw(self, undone: Undone, engine: Engine) -> None:
        """Make pictures of a job with each other and with those of jobs that wait, as long as that goes well; what is
        still left then is to be made singly.

        Raises:
            JobCancelled: its owner stopped it, or the studio stops.
        """
        if not may_share(undone.request) or (most := engine.most_at_once(undone.request)) < 2:
            return
        room = -len(undone.left) % most if self._takes_along else 0
        wanted = _Wanted(self._drawer, undone.request, room)
        with self._runner.taking_along(undone.job, wanted, wanted.room) as riders:
            others = [self._drawer.undone(rider) for rider in riders]
            for other in others:
                other.job.emit(Drawing)
            units = [unit for each in (undone, *others) for unit in self._units(each)]
            try:
                for first in range(0, len(units), most):
                    if len(batch := units[first : first + most]) > 1:
                        self._draw_batch(batch, engine)
            except StudioError as error:
                logger.warning("made one by one instead of together: %s", error)
            for other in others:
                if not other.left:
                    self._runner.finish(other.job, self._drawer.summary(other))
        if undone.job.cancelled():
            raise JobCancelled

    def _units(self, undone: Undone) -> Iterator[_Unit]:
        for index in undone.left:
            yield _Unit(of=undone, index=index, recipe=self._drawer.single(undone.request, index))

    def _draw_batch(self, units: Sequence[_Unit], engine: Engine) -> None:
        for unit in units:
            self._drawer.check_words(unit.recipe.prompt)
        added = self._additions.of(units[0].recipe)
        telling = {unit.of.job.id: place for place, unit in reversed(list(enumerate(units)))}
        for unit in units:
            unit.of.reporter.together = sum(other.of is unit.of for other in units)

        def on_step(step: Step) -> None:
            of = units[step.place].of
            if of.job.cancelled():
                self._runner.settle_cancelled(of.job)
            elif telling[of.job.id] == step.place:
                of.reporter(step)

        pictures = engine.generate_batch(
            [Order(request=unit.recipe, prompts=self._drawer.prompts(unit.recipe)) for unit in units],
            added.adapters,
            timesteps=added.timesteps,
            cancelled=lambda: all(unit.of.job.cancelled() for unit in units),
            on_step=on_step,
        )
        for unit, picture in zip(units, pictures, strict=True):
            with suppress(JobCancelled):  # before, or while it was held; those beside it go on
                self._keep(unit, picture, units)

    def _keep(self, unit: _Unit, picture: Picture, units: Sequence[_Unit]) -> None:
        def settle() -> None:
            held = unit.of.job.held
            for each in units:
                if each.of.job.cancelled():
                    with suppress(StorageFailed):  # it is tried again at the next look
                        self._runner.settle_cancelled(each.of.job)
                elif held and each.index in each.of.left and not each.of.job.held:
                    each.of.job.emit(Held, message=held.message, hint=held.hint)

        settle()
        if unit.of.job.cancelled():
            raise JobCancelled
        told = self._drawer.finished(picture, unit.recipe)
        self._drawer.keep(unit.of.job, unit.recipe, unit.index, told, settle)
        unit.of.left.remove(unit.index)
        unit.of.reporter.image_done()


class _Wanted:
    """Says of waiting jobs whether they may be done with one of `request`: alike, with the same adapters, and together
    no more pictures than there is `room` for."""

    def __init__(self, drawer: Drawer, request: ResolvedRequest, room: int) -> None:
        self._drawer = drawer
        self._request = request
        self.room = room

    def __call__(self, row: JobRow) -> bool:
        request = self._drawer.recipe_of(row.payload)
        is_wanted = (
            request.num_images <= self.room
            and are_alike(self._request, request)
            and adapters_named(self._request.prompt) == adapters_named(request.prompt)
        )
        self.room -= request.num_images if is_wanted else 0
        return is_wanted
