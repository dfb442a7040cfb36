"""The events of a job as Server-Sent Events: one for each, with its index, so that a client that lost its connection
goes on where it was."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import fields
from typing import Any

from starlette.responses import Response, StreamingResponse

from studio.domain.events import Event, ImageReady
from studio.job import Job
from studio.web.page_routes import picture_address
from studio.web.refusals import name_of
from studio.web.waiting import events_of

HEARTBEAT_S = 15.0
"""After so long without an event a comment is sent: what lies between closes connections that say nothing."""
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def event_stream(job: Job, after: int, *, with_previews: bool) -> Response:
    """The events with an index above `after`, to the terminal one. Nothing (204, upon which browsers stop asking) where
    the client had that already."""
    if job.is_over and not job.present(after):
        return Response(status_code=204)
    return StreamingResponse(_lines(job, after, with_previews), media_type="text/event-stream", headers=_HEADERS)


def event_fields(event: Event, *, with_previews: bool) -> dict[str, Any]:
    """What an event tells, as JSON can hold it; previews are base64."""
    told = {field.name: getattr(event, field.name) for field in fields(event)}
    preview = told.pop("preview", None)
    if with_previews and preview:
        told["preview"] = base64.b64encode(preview).decode()
    if isinstance(event, ImageReady):
        told["url"] = picture_address(event.image_id)
    return told


async def _lines(job: Job, after: int, with_previews: bool) -> AsyncIterator[str]:
    with job.watched() if with_previews else nullcontext():
        events = events_of(job, after)
        upcoming = asyncio.ensure_future(anext(events, None))
        try:
            while True:
                done, _ = await asyncio.wait({upcoming}, timeout=HEARTBEAT_S)
                if not done:
                    yield ": still here\n\n"
                    continue
                event = upcoming.result()
                if event is None:
                    return
                data = json.dumps(event_fields(event, with_previews=with_previews))
                yield f"id: {event.index}\nevent: {name_of(event)}\ndata: {data}\n\n"
                upcoming = asyncio.ensure_future(anext(events, None))
        finally:
            upcoming.cancel()
