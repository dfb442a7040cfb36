"""Our own API as functions to call by name: those that Gradio's clients and language models are offered.

They are the JSON API's jobs, waited for, and tell what it tells; whoever may not do a thing there may not do it here.
"""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from studio.domain.errors import InvalidRequest, JobCancelled, NotFound, StudioError
from studio.domain.images import ImageRecord
from studio.job import Job
from studio.services import Services
from studio.tables import JobRow
from studio.web.access import Caller, caller_of, idempotency_key
from studio.web.own.answers import short
from studio.web.own.asking import check_is_somebody, submitted
from studio.web.own.call_forms import (
    MAX_WAIT_S,
    PICTURES,
    AdaptersCall,
    EvaluateCall,
    FlashCall,
    GenerateCall,
    JobCall,
    ModelsCall,
    StopCall,
    TrainCall,
    TrainingCall,
)
from studio.web.own.catalogue import accelerators, adapters, controls, models, samplers, styles
from studio.web.own.jobs import job_view, live, row_of
from studio.web.own.results import result_view, run_view
from studio.web.waiting import rest

_CHOICES = (models, accelerators, controls, samplers, styles)
LOOK_EVERY_S = 0.5
"""How often who waits is told how far it is; also how late it is noticed that they left."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is told: the last reply of a call is its answer, those before say how far it is. `pictures` are whole."""

    told: dict[str, Any]
    pictures: tuple[ImageRecord, ...] = ()


Replies = AsyncGenerator[Reply, None]


@dataclass(frozen=True, kw_only=True)
class Called:
    """One call: who calls, and with what. `once_key` is the request's `Idempotency-Key`."""

    services: Services
    caller: Caller
    values: Mapping[str, Any]
    once_key: str = ""

    @property
    def wait_s(self) -> float:
        """How long the caller wants to wait, in seconds; raises InvalidRequest where that is no such number."""
        given = self.values.get("wait_s", 0)
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= MAX_WAIT_S:
            raise InvalidRequest(
                f"wait_s is {short(given)}; it must be a number from 0 to {MAX_WAIT_S}.", "Ask again later.", "wait_s"
            )
        return given

    def text(self, name: str) -> str:
        """A value that is a text, whatever was sent."""
        return str(self.values.get(name, ""))


@dataclass(frozen=True, kw_only=True)
class Call:
    """Something that can be called: its parameters are the fields of `form`."""

    name: str
    form: type[BaseModel]
    run: Callable[[Called], Replies]
    has_pictures: bool = False
    """Whether its answer is pictures, too."""
    is_long: bool = False
    """Whether it waits for something."""
    is_owners: bool = False
    """Whether only this machine's owner is offered it."""
    changes: bool = True
    """Whether anything is there afterwards that was not before, or the other way round."""

    @cached_property
    def description(self) -> str:
        return " ".join((self.form.__doc__ or "").split())

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Of its parameters, as JSON Schema."""
        schema = self.form.model_json_schema()
        return {name: value for name, value in schema.items() if name not in ("title", "description")}

    async def replies(self, services: Services, request: Request, values: Mapping[str, Any]) -> Replies:
        """Answer who sends `request`. To close it early is to leave.

        Raises:
            StudioError: it is refused or fails.
            JobCancelled: the studio stops.
        """
        if self.is_owners and not services.settings.is_local:
            raise NotFound(f"There is nothing called {self.name!r} here.", "It is for this machine's owner alone.")
        unknown = next((name for name in values if name not in self.form.model_fields), None)
        if unknown is not None:
            known = ", ".join(self.form.model_fields) or "none"
            raise InvalidRequest(f"There is no setting called {unknown!r}.", f"Known settings: {known}.", unknown)
        caller, once_key = caller_of(request, services.settings), idempotency_key(request)
        called = Called(services=services, caller=caller, values=values, once_key=once_key)
        async with aclosing(self.run(called)) as replies:
            async for reply in replies:
                yield reply


def offered(services: Services) -> tuple[Call, ...]:
    """Those that can be called in this studio."""
    return tuple(call for call in CALLS if services.settings.is_local or not call.is_owners)


async def _begin(called: Called, kind: str) -> str:
    """Put a job in line; gives its id."""
    check_is_somebody(called.caller)
    given = {name: value for name, value in called.values.items() if name != "wait_s"}
    left_out = {name for name in PICTURES if given.get(name) is None}
    values = {PICTURES.get(name, name): value for name, value in given.items() if name not in left_out}
    values["kind"] = kind
    return await run_in_threadpool(submitted, called.services, called.caller, values, called.once_key)


async def _drawn(kind: str, called: Called) -> Replies:
    """Begin a job and follow it to its end. Who leaves before ends it, unless they may come back with its key."""
    job_id = await _begin(called, kind)
    job = live(called.services, called.services.runner.row(job_id))
    try:
        async for reply in _followed(called, job, float("inf")):
            job.check_goes_on()
            yield reply
        if not job.is_over:
            raise JobCancelled
    finally:
        if not (job.is_over or job.is_paused or called.once_key):
            job.cancel()
    yield await run_in_threadpool(_ended, called, job, has_pictures=True)


async def _evaluate(called: Called) -> Replies:
    wait_s = called.wait_s
    job_id = await _begin(called, "evaluate")
    async for reply in _stands(called, job_id, wait_s):
        yield reply


async def _job(called: Called) -> Replies:
    async for reply in _stands(called, called.text("job"), called.wait_s):
        yield reply


async def _stands(called: Called, job_id: str, wait_s: float) -> Replies:
    """How a job of the caller's stands after `wait_s`, or what came of it."""
    job = live(called.services, await run_in_threadpool(row_of, called.services, called.caller, job_id))
    async for reply in _followed(called, job, wait_s):
        yield reply
    await run_in_threadpool(job.refresh)
    yield await run_in_threadpool(_ended if job.is_over else _standing, called, job)


async def _train(called: Called) -> Replies:
    job_id = await _begin(called, "train")
    row = await run_in_threadpool(called.services.runner.row, job_id)
    standing = await run_in_threadpool(_standing, called, live(called.services, row))
    yield Reply(told={"run": str(row.payload.get("run", "")), "job": standing.told})


async def _training(called: Called) -> Replies:
    services, wait_s = called.services, called.wait_s
    run = await run_in_threadpool(services.training.run_of, called.text("run"))
    job = await run_in_threadpool(services.training.job_of, run)
    if job is not None:
        async for reply in _followed(called, job, wait_s):
            yield reply
    standing = (await run_in_threadpool(_standing, called, job)).told if job is not None else None
    view = await run_in_threadpool(run_view, services, run.id)
    if view is None:
        raise NotFound("There is no such training run.", "It may have been deleted.")
    yield Reply(told={"run": plain(view), "job": standing})


async def _stop(called: Called) -> Replies:
    job = live(called.services, await run_in_threadpool(row_of, called.services, called.caller, called.text("job")))
    await run_in_threadpool(job.cancel)
    yield await run_in_threadpool(_standing, called, job)


async def _models(called: Called) -> Replies:
    services = called.services
    views = await run_in_threadpool(lambda: [list_of(services) for list_of in _CHOICES])
    yield Reply(told={name: value for view in views for name, value in plain(view).items()})


async def _adapters(called: Called) -> Replies:
    yield Reply(told=plain(await run_in_threadpool(adapters, called.services)))


async def _followed(called: Called, job: Job, wait_s: float) -> Replies:
    """How far `job` is, now and then, until it is over, the studio stops, or `wait_s` are over."""
    begun = asked = time.monotonic()
    looked = float("-inf")
    while not (job.is_over or job.is_paused) and (now := time.monotonic()) - begun < wait_s:
        if now - looked >= LOOK_EVERY_S:
            looked = now
            yield await run_in_threadpool(_standing, called, job)
        asked = await rest(job, asked)


def _standing(called: Called, job: Job) -> Reply:
    return Reply(told=plain(job_view(called.services, _row(called, job))))


def _ended(called: Called, job: Job, *, has_pictures: bool = False) -> Reply:
    """What came of a job that is over.

    Raises:
        StudioError: it failed.
    """
    row = _row(called, job)
    if row.state == "failed" and has_pictures:
        raise StudioError(row.message, row.hint)
    pictures = called.services.gallery.of_job(job.id) if has_pictures else []
    return Reply(told=plain(result_view(called.services, row, job)), pictures=tuple(pictures))


def _row(called: Called, job: Job) -> JobRow:
    return called.services.runner.row(job.id)


def plain(view: BaseModel) -> dict[str, Any]:
    """A view as JSON has it, without what it says nothing of."""
    return view.model_dump(mode="json", exclude_none=True)


CALLS = (
    Call(name="generate", form=GenerateCall, run=partial(_drawn, "generate"), has_pictures=True, is_long=True),
    Call(name="flash", form=FlashCall, run=partial(_drawn, "flash"), has_pictures=True, is_long=True),
    Call(name="evaluate", form=EvaluateCall, run=_evaluate, is_long=True),
    Call(name="train_lora", form=TrainCall, run=_train, is_owners=True),
    Call(name="training", form=TrainingCall, run=_training, is_long=True, is_owners=True, changes=False),
    Call(name="job", form=JobCall, run=_job, is_long=True, changes=False),
    Call(name="stop", form=StopCall, run=_stop),
    Call(name="models", form=ModelsCall, run=_models, changes=False),
    Call(name="adapters", form=AdaptersCall, run=_adapters, changes=False),
)
