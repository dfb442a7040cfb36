"""What OpenAI's clients are answered: pictures at once, or event by event while they are drawn (server-sent events)."""

import base64
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from studio.domain.errors import JobCancelled, StudioError
from studio.domain.events import Event, Failed, Finished, Held, ImageReady, Progress
from studio.domain.images import ImageRecord
from studio.domain.request import ResolvedRequest
from studio.domain.tags import without_tags
from studio.job import Job
from studio.services import Services
from studio.web.openai.errors import error_body
from studio.web.openai.pictures import file_of, preview_as
from studio.web.openai.requests import Wishes
from studio.web.page_routes import picture_address
from studio.web.refusals import told
from studio.web.waiting import events_of

_NO_TOKENS = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""Nothing is counted here, and clients expect numbers."""
_EVENT_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Says what came of `prompt`, in the form of `wishes`. `base_url` is that of the server, with a slash at its end;
    `kind` is what events are called after. Reads files: not for the thread that serves everybody."""

    services: Services
    wishes: Wishes
    prompt: str
    base_url: str
    kind: str

    def whole(self, records: Sequence[ImageRecord]) -> dict[str, Any]:
        """The body for finished pictures."""
        addresses = self.wishes.response_format == "url"
        return {
            "created": int(max(record.created_at for record in records)),
            "data": [self._address(record) if addresses else self._picture(record) for record in records],
            **self._form(records[0].recipe.final_size),
        }

    def completed(self, image_id: str) -> bytes:
        """The event for a finished picture."""
        record = self.services.gallery.image(image_id)
        told = {"created_at": int(record.created_at), **self._form(record.recipe.final_size), "usage": _NO_TOKENS}
        return _event(f"{self.kind}.completed", {**self._picture(record), **told})

    def partial(self, preview: bytes, index: int, size: tuple[int, int]) -> bytes:
        """The event for a picture in the making, number `index` of those that are shown of it."""
        picture = preview_as(preview, size, self.wishes.output_format, self.wishes.output_compression)
        told = {"created_at": int(time.time()), **self._form(size), "partial_image_index": index}
        return _event(f"{self.kind}.partial_image", {"b64_json": _base64(picture), **told})

    def _address(self, record: ImageRecord) -> dict[str, Any]:
        return {"url": f"{self.base_url.rstrip('/')}{picture_address(record.id)}", **self._made(record)}

    def _picture(self, record: ImageRecord) -> dict[str, Any]:
        services, wishes = self.services, self.wishes
        file = file_of(record, services.gallery, services.catalogue, wishes.output_format, wishes.output_compression)
        return {"b64_json": _base64(file), **self._made(record)}

    def _made(self, record: ImageRecord) -> dict[str, Any]:
        is_revised = record.prompt_as_run != without_tags(self.prompt)
        return {"seed": record.recipe.seed, **({"revised_prompt": record.prompt_as_run} if is_revised else {})}

    def _form(self, size: tuple[int, int]) -> dict[str, str]:
        return {
            "background": "opaque",
            "output_format": self.wishes.output_format,
            "quality": self.wishes.told_quality,
            "size": f"{size[0]}x{size[1]}",
        }


class EventAnswer(StreamingResponse):
    """The events of a job as they come. If whoever asked goes away the job is cancelled, unless it `is_kept`."""

    def __init__(self, job: Job, answers: Answers, *, is_kept: bool) -> None:
        super().__init__(_lines(job, answers), headers=_EVENT_HEADERS, media_type="text/event-stream")
        self._job = job
        self._is_kept = is_kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if not (self._is_kept or self._job.is_over or self._job.is_paused):
                with anyio.CancelScope(shield=True):
                    await run_in_threadpool(self._job.cancel)


class _Partials:
    """Chooses `count` previews of each picture, evenly spread over its steps as far as they come."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._image_index = -1
        self._shown = 0
        self._last: bytes = b""

    def chosen(self, event: Progress) -> tuple[bytes, int] | None:
        """The preview of `event` with its number, counted from 0, if it is one to show."""
        if event.image_index != self._image_index:
            self._image_index, self._shown = event.image_index, 0
        is_due = event.step * (self._count + 1) >= event.total * (self._shown + 1)
        is_left = self._shown < self._count and event.step < event.total
        if not (is_due and is_left and event.preview) or event.preview == self._last:
            return None
        self._last, self._shown = event.preview, self._shown + 1
        return event.preview, self._shown - 1


async def _lines(job: Job, answers: Answers) -> AsyncGenerator[bytes]:
    try:
        async for event in _pictures(job, answers):
            yield event
    except Exception as error:
        yield _event("error", error_body(told(error)))


async def _pictures(job: Job, answers: Answers) -> AsyncGenerator[bytes]:
    """The events for a client, each picture in its turn, and a comment for whatever else happens: what stands between
    gives up a connection on which nothing is heard.

    Raises:
        StudioError: the job failed, or is held.
        JobCancelled: it was cancelled, or the studio stops.
    """
    partials, ready, following = _Partials(answers.wishes.partial_images), dict[int, str](), 0
    recipe = ResolvedRequest.model_validate({name: job.payload[name] for name in ResolvedRequest.model_fields})
    async for event in _watched(job, answers.wishes.partial_images > 0):
        match event:
            case Progress() if chosen := partials.chosen(event):
                yield await run_in_threadpool(answers.partial, *chosen, recipe.final_size)
            case ImageReady():
                ready[event.image_index] = event.image_id
                while following in ready:
                    yield await run_in_threadpool(answers.completed, ready[following])
                    following += 1
            case Finished():
                return
            case Failed():
                raise StudioError(event.message, event.hint)
            case Held():
                job.check_goes_on()
            case _:
                yield b": " + type(event).__name__.lower().encode() + b"\n\n"
    raise JobCancelled


async def _watched(job: Job, previews: bool) -> AsyncGenerator[Event]:
    with job.watched() if previews else nullcontext():
        async for event in events_of(job):
            yield event


def _event(name: str, told: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **told})}\n\n".encode()


def _base64(file: bytes) -> str:
    return base64.b64encode(file).decode()
