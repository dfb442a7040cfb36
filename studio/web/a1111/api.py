"""AUTOMATIC1111's API `/sdapi/v1` over our services, for the programs that speak it.

One picture of several cannot be skipped here, so `skip` does what `interrupt` does: the job ends, and the pictures that
are finished are its answer. What a caller chooses by `options` holds for that caller alone.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import psutil
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engines.system_memory import system_free_bytes
from studio.domain.errors import InvalidRequest, JobCancelled, NotFound
from studio.job import Job
from studio.services import Services
from studio.web.a1111.choices import Chosen, Visitors
from studio.web.a1111.names import (
    adapter_list,
    checkpoint_sha256,
    model_list,
    sampler_list,
    schedule_list,
    style_list,
)
from studio.web.a1111.pictures import kept_pictures, png_info
from studio.web.a1111.progress import Previews, present_job, progress_reply
from studio.web.a1111.replies import pictures_reply, refusal
from studio.web.a1111.requests import Asked, Img2Img, Txt2Img, chosen_in, read_asked, request_of
from studio.web.access import Caller, caller_of, idempotency_key
from studio.web.bodies import read_json
from studio.web.refusals import METHODS, RETRY_AFTER_S, Endpoint, Refused, answered
from studio.web.waiting import wait_for

PREFIX = "/sdapi/v1"

Ask = Callable[[Request], Awaitable[Any]]


def a1111_routes(services: Services) -> list[BaseRoute]:
    """Every route of the API, and one that refuses whatever else is asked for under its prefix."""
    return _Api(services).routes()


class _Api:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._visitors = Visitors()
        self._previews = Previews()

    def routes(self) -> list[BaseRoute]:
        services, catalogue = self._services, self._services.catalogue
        gets: dict[str, Ask] = {
            "progress": self.progress,
            "options": self.options,
            "sd-models": _told(lambda: model_list(services)),
            "loras": _told(lambda: adapter_list(services)),
            "samplers": _told(lambda: sampler_list(catalogue)),
            "schedulers": _told(lambda: schedule_list(catalogue)),
            "prompt-styles": _told(lambda: style_list(catalogue)),
            "upscalers": _told(lambda: [{"name": "Lanczos", "model_name": None, "model_path": None, "scale": 4}]),
            "latent-upscale-modes": _told(lambda: [{"name": "Latent"}]),
            "scripts": _told(lambda: {"txt2img": [], "img2img": []}),
            "embeddings": _told(lambda: {"loaded": {}, "skipped": {}}),
            "memory": _told(_memory),
            "cmd-flags": _told(dict),
            **{name: _told(list) for name in ("sd-vae", "hypernetworks", "face-restorers", "script-info")},
        }
        posts: dict[str, Ask] = {
            "txt2img": self.txt2img,
            "img2img": self.img2img,
            "interrupt": self.interrupt,
            "skip": self.interrupt,
            "options": self.choose,
            "png-info": _png_info,
            "refresh-checkpoints": self.refresh,
            "refresh-loras": _told(lambda: None),  # they are looked for whenever they are asked for
        }
        offered = {"GET": gets, "POST": posts}
        routes = [
            Route(f"{PREFIX}/{name}", _answered(endpoint), methods=[method])
            for method, endpoints in offered.items()
            for name, endpoint in endpoints.items()
        ]

        async def unknown(request: Request) -> Any:
            name = request.path_params["rest"].strip("/")
            allowed = [method for method, endpoints in offered.items() if name in endpoints]
            if allowed:
                methods = " or ".join(allowed)
                raise Refused(405, "wrong_method", f"{name} is asked by {methods}.", "", {"Allow": ", ".join(allowed)})
            raise NotFound(f"There is no {name[:100]!r} under {PREFIX} here.")

        return [*routes, Route(PREFIX + "{rest:path}", _answered(unknown), methods=METHODS)]

    async def txt2img(self, request: Request) -> Any:
        return await self._drawn(Txt2Img, request)

    async def img2img(self, request: Request) -> Any:
        return await self._drawn(Img2Img, request)

    async def progress(self, request: Request) -> Any:
        caller = caller_of(request, self._services.settings)
        job = await run_in_threadpool(present_job, caller, self._services)
        has_image = request.query_params.get("skip_current_image", "").casefold() not in ("true", "1", "yes", "on")
        if job and has_image:
            self._previews.want(job)
        return await run_in_threadpool(progress_reply, job, self._services, has_image=has_image)

    async def interrupt(self, request: Request) -> Any:
        caller = caller_of(request, self._services.settings)
        job = await run_in_threadpool(present_job, caller, self._services)
        if job:
            await run_in_threadpool(job.cancel)
        return {}

    async def options(self, request: Request) -> Any:
        chosen = self._visitors.chosen(caller_of(request, self._services.settings).visitor)
        checkpoint_id = chosen.checkpoint or self._services.catalogue.default_checkpoint
        return {
            "sd_model_checkpoint": checkpoint_id,
            "sd_checkpoint_hash": await run_in_threadpool(checkpoint_sha256, checkpoint_id, self._services),
            "CLIP_stop_at_last_layers": chosen.clip_skip or 1,
            "samples_format": "png",
        }

    async def choose(self, request: Request) -> Any:
        chosen = chosen_in(await read_json(request), self._services.catalogue)
        self._remember(request, chosen)

    async def refresh(self, _: Request) -> Any:
        await run_in_threadpool(self._services.own_checkpoints.refresh)

    async def _drawn(self, kind: type[Asked], request: Request) -> Any:
        body = await read_json(request)
        caller, key = caller_of(request, self._services.settings), idempotency_key(request)
        asked = read_asked(kind, body)
        if not asked.override_settings_restore_afterwards:
            self._remember(request, chosen_in(asked.override_settings, self._services.catalogue))
        job = await run_in_threadpool(self._submit, asked, caller, key)
        try:
            await wait_for(job, request, is_kept=bool(key))
        except JobCancelled:
            if not job.is_over:  # else it was interrupted, and what is finished is the answer
                later = {"Retry-After": str(RETRY_AFTER_S)}
                raise Refused(
                    503, "stopped", "The studio stops before this is drawn.", "Ask again soon.", later
                ) from None
        return await run_in_threadpool(pictures_reply, asked, job, self._services)

    def _submit(self, asked: Asked, caller: Caller, once_key: str) -> Job:
        services, visitor = self._services, caller.visitor
        made = request_of(asked, self._visitors.chosen(visitor), services.catalogue)
        if isinstance(asked, Img2Img):
            made = made.model_copy(update=kept_pictures(asked, services.sources, visitor))
        return services.generation.submit(made, visitor, once_key=once_key)

    def _remember(self, request: Request, chosen: Chosen) -> None:
        """Let what is `chosen` hold for whoever sends `request`.

        Raises:
            InvalidRequest: nobody could tell whose later requests it is to hold for.
        """
        caller = caller_of(request, self._services.settings)
        if caller.owner is not None and not caller.is_named:
            raise InvalidRequest(
                "Nobody knows whose later requests this is to hold for.",
                "Send a token as the user name of HTTP Basic, or override_settings with each request.",
            )
        self._visitors.remember(caller.visitor, chosen)


def _answered(ask: Ask) -> Endpoint:
    """What is asked, as JSON."""

    async def endpoint(request: Request) -> Response:
        return JSONResponse(await ask(request))

    return answered(endpoint, refusal)


def _told(tell: Callable[[], Any]) -> Ask:
    """An endpoint that asks for nothing."""

    async def told(_: Request) -> Any:
        return await run_in_threadpool(tell)

    return told


async def _png_info(request: Request) -> Any:
    image = (await read_json(request)).get("image")
    if not isinstance(image, str):
        raise InvalidRequest("There is no picture to read.", "Send one as image, in base64.", "image")
    return await run_in_threadpool(png_info, image)


def _memory() -> dict[str, Any]:
    free, total = system_free_bytes(), psutil.virtual_memory().total
    return {"ram": {"free": free, "used": max(0, total - free), "total": total}, "cuda": {}}
