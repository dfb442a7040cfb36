"""Which job a caller of AUTOMATIC1111's API means, and how far it is: its progress and its interruption name none."""

import asyncio
import base64
import contextlib
import time
from collections.abc import Iterable
from typing import Any, TypeVar

from studio.domain.events import Event, Progress, Started
from studio.generation import KIND
from studio.job import Job
from studio.services import Services
from studio.tables import JobRow
from studio.web.access import Caller

PREVIEWS_FOR_S = 10.0
"""How long previews are made for a job after somebody asked how far it is: they cost up to a tenth of its time."""
_LOOK_EVERY_S = 0.5
_BEGUN = 0.01
"""What is told of a job that runs and has no step yet: clients take 0 for nothing to do."""

EventT = TypeVar("EventT", bound=Event)


def present_job(caller: Caller, services: Services) -> Job | None:
    """The picture that is being made for `caller`, else the one that waits for longest; on a page of one's own, for
    anybody. None where there is none."""
    jobs = {job.id: job for job in services.runner.active(caller.owner) if job.kind == KIND}
    rows = [services.runner.row(job_id) for job_id in sorted(jobs)]  # an id begins with its time
    found = next((row for row in rows if row.state == "running"), None)
    found = found or next((row for row in rows if not row.is_over), None)
    return jobs[found.id] if found else None


def progress_reply(job: Job | None, services: Services, *, has_image: bool) -> dict[str, Any]:
    """How far `job` is in A1111's words; that nothing is done where there is none."""
    if job is None or job.is_over:
        return _told(0.0, 0.0, _state(), None, None)
    row, events = services.runner.row(job.id), job.present()
    count, step = int(job.payload["num_images"]), _newest(events, Progress)
    state = _state(job, row, count)
    if step is None:
        is_running = _newest(events, Started) is not None
        if is_running:
            return _told(_BEGUN, 0.0, state, None, None)
        ahead = services.runner.jobs_ahead(job)
        wait_s = services.ledger.wait_s(row.queue, ahead) or 0.0
        return _told(0.0, wait_s, state, None, f"Waits; jobs before it: {ahead}.")
    state |= {"job_no": step.image_index, "sampling_step": step.step, "sampling_steps": step.total}
    done = (step.image_index + step.step / step.total) / step.num_images
    preview = base64.b64encode(step.preview).decode() if has_image and step.preview else None
    return _told(max(_BEGUN, min(done, 1.0)), step.eta_s or 0.0, state, preview, None)


class Previews:
    """Lets previews be made for jobs of which somebody asked a moment ago. Belongs to one event loop."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def want(self, job: Job) -> None:
        """Make them for `job` for a while from now on."""
        is_new = job.id not in self._until
        self._until[job.id] = time.monotonic() + PREVIEWS_FOR_S
        if is_new:
            task = asyncio.create_task(self._watch(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _watch(self, job: Job) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._until.pop, job.id)
            stack.enter_context(job.watched())
            while time.monotonic() < self._until[job.id] and not (job.is_over or job.is_paused):
                await asyncio.sleep(_LOOK_EVERY_S)


def _newest(events: Iterable[Event], kind: type[EventT]) -> EventT | None:
    return next((event for event in reversed(list(events)) if isinstance(event, kind)), None)


def _state(job: Job | None = None, row: JobRow | None = None, count: int = 0) -> dict[str, Any]:
    made = time.strftime("%Y%m%d%H%M%S", time.localtime(row.created_at)) if row else "0"
    return {
        "skipped": False,
        "interrupted": row is not None and row.is_cancel_requested,
        "stopping_generation": False,
        "job": job.id if job else "",
        "job_count": count,
        "job_timestamp": made,
        "job_no": 0,
        "sampling_step": 0,
        "sampling_steps": 0,
    }


def _told(
    progress: float, eta_s: float, state: dict[str, Any], preview: str | None, text: str | None
) -> dict[str, Any]:
    told = {"progress": progress, "eta_relative": eta_s, "state": state}
    return {**told, "current_image": preview, "textinfo": text}
