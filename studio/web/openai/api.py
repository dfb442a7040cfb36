"""OpenAI's Images API: its own clients draw here when they are told this server's address and `/v1`."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from studio.domain.errors import InvalidRequest
from studio.generation import job_images
from studio.services import Services
from studio.web.access import caller_of, idempotency_key
from studio.web.bodies import read_form, read_json
from studio.web.openai.answers import Answers, EventAnswer
from studio.web.openai.errors import refusal
from studio.web.openai.requests import checkpoint_id, in_their_words, request_of, wishes_of
from studio.web.refusals import METHODS, Refused, answered
from studio.web.waiting import wait_for

Ask = Callable[[Services, Request], Awaitable[Response]]


def openai_routes(services: Services) -> list[BaseRoute]:
    """Everything below `/v1`, in OpenAI's forms, errors included."""
    return [
        _route(services, "/v1/images/generations", generations, ("POST",)),
        _route(services, "/v1/images/edits", edits, ("POST",)),
        _route(services, "/v1/models", models, ("GET", "HEAD")),
        _route(services, "/v1/models/{model:path}", model, ("GET", "HEAD")),
        _route(services, "/v1/{rest:path}", unknown, METHODS),
    ]


async def generations(services: Services, request: Request) -> Response:
    """Pictures of a prompt."""
    return await _drawn(services, request, await read_json(request), "image_generation")


async def edits(services: Services, request: Request) -> Response:
    """A picture drawn over, or the part of it that a mask shows."""
    values = _fields(await read_form(request))
    if not (values.get("image") or values.get("init_image")):
        raise InvalidRequest("There is no picture to change.", "Send one as image.", "image")
    return await _drawn(services, request, values, "image_edit")


async def models(services: Services, request: Request) -> Response:
    """Every checkpoint that can be asked for."""
    await run_in_threadpool(services.own_checkpoints.refresh)
    return JSONResponse({"object": "list", "data": [_told(row.id) for row in services.catalogue.checkpoints]})


async def model(services: Services, request: Request) -> Response:
    """One of them, or what stands for one."""
    name = request.path_params["model"]
    checkpoint_id(name, services.catalogue)
    return JSONResponse(_told(name))


async def unknown(services: Services, request: Request) -> Response:
    """Whatever else a client of OpenAI may ask for."""
    there = "There are images/generations, images/edits and models."
    raise Refused(404, "unknown_url", f"There is no {request.url.path} here.", there)


async def _drawn(services: Services, request: Request, values: Mapping[str, Any], kind: str) -> Response:
    caller, key = caller_of(request, services.settings), idempotency_key(request)
    wishes = wishes_of(values)
    asked = await run_in_threadpool(request_of, values, services, caller)
    with in_their_words(values):
        job = await run_in_threadpool(services.generation.submit, asked, caller.visitor, once_key=key)
    answers = Answers(services=services, wishes=wishes, prompt=asked.prompt, base_url=str(request.base_url), kind=kind)
    if wishes.stream:
        return EventAnswer(job, answers, is_kept=bool(key))
    await wait_for(job, request, is_kept=bool(key))
    return JSONResponse(await run_in_threadpool(lambda: answers.whole(job_images(job, services.gallery))))


def _route(services: Services, path: str, endpoint: Ask, methods: tuple[str, ...]) -> Route:
    async def asked(request: Request) -> Response:
        if request.method not in methods:
            message = f"{request.method} does nothing here; {methods[0]} does."
            raise Refused(405, "method_not_allowed", message, headers={"Allow": ", ".join(methods)})
        return await endpoint(services, request)

    return Route(path, answered(asked, refusal), methods=METHODS)


def _fields(form: Sequence[tuple[str, bytes | str]]) -> dict[str, Any]:
    """The fields of a form by name; `image[]` is `image`.

    Raises:
        InvalidRequest: it holds several pictures to change.
    """
    items = [(name.removesuffix("[]"), value) for name, value in form]
    pictures = [name for name, _ in items].count("image")
    if pictures > 1:
        raise InvalidRequest(
            f"There are {pictures} pictures to change; one at a time can be.", "Send a single image.", "image"
        )
    return dict(items)


def _told(name: str) -> dict[str, Any]:
    """A model as OpenAI's list has it. When its weights were made is not known here."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "flash-studio"}
