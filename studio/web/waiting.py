"""Waiting for a job without holding a thread: any number of clients may wait at once."""

import asyncio
import time
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from studio.domain.errors import JobCancelled, StorageFailed
from studio.domain.events import TERMINAL, Event
from studio.job import Job

_LOOK_EVERY_S = 0.05
_ASK_EVERY_S = 1.0
"""How often the ledger is asked what another process did to the job."""


async def events_of(job: Job, after: int = -1) -> AsyncIterator[Event]:
    """The events of `job` with an index above `after`, as they come, up to the terminal one. Ends without it when the
    studio stops. Inside `job.watched()` they have previews."""
    asked = time.monotonic()
    while not job.is_paused:
        for event in job.present(after):
            after = event.index
            yield event
            if isinstance(event, TERMINAL):
                return
        asked = await rest(job, asked)


async def wait_for(job: Job, request: Request, *, is_kept: bool = False) -> None:
    """Wait for the end of `job`. If whoever sent `request` goes away it is cancelled, unless it `is_kept`.

    Raises:
        StudioError: it failed, or is held; in that case, too, it is cancelled unless it `is_kept`.
        JobCancelled: it was cancelled, or nobody waits for it any more, or the studio stops.
    """
    asked = time.monotonic()
    try:
        while not (job.is_over or job.is_paused):
            if await request.is_disconnected():
                raise JobCancelled
            job.check_goes_on()
            asked = await rest(job, asked)
    except (JobCancelled, StorageFailed):
        if not is_kept:
            await run_in_threadpool(job.cancel)
        raise
    if not job.is_over:
        raise JobCancelled
    job.result(timeout=0)


async def rest(job: Job, asked: float) -> float:
    """Pause until the next look, and ask the ledger where it was last `asked` long ago; gives when it was."""
    await asyncio.sleep(_LOOK_EVERY_S)
    if time.monotonic() - asked <= _ASK_EVERY_S:
        return asked
    await run_in_threadpool(job.refresh)
    return time.monotonic()
