"""How the studio is, for whoever watches over it: alive, ready, and in numbers."""

import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from studio import __version__
from studio.domain.errors import StudioError
from studio.domain.hosting import is_zero_gpu
from studio.services import Services
from studio.web.metrics import METRICS_TYPE, metrics_text

LEAST_FREE_BYTES = 100_000_000
_FRESH = {"Cache-Control": "no-store"}


def health_routes(services: Services) -> list[BaseRoute]:
    """`/health`, `/health/ready` and `/metrics`. They tell nothing of anybody, and so ask nobody who they are."""

    def live(_: Request) -> Response:
        state = services.generation.engine_state()
        loaded = list(state.loaded) if state else []
        told = {"ok": True, "version": __version__, "loaded": loaded, "zero_gpu": is_zero_gpu()}
        return JSONResponse(told, headers=_FRESH)

    def ready(_: Request) -> Response:
        found = dict(problems(services))
        told: dict[str, Any] = {"ok": not found, "problems": found}
        return JSONResponse(told, 503 if found else 200, headers=_FRESH)

    def metrics(_: Request) -> Response:
        try:
            text = metrics_text(services)
        except StudioError as error:
            return JSONResponse({"ok": False, "problems": {"ledger": str(error)}}, 503, headers=_FRESH)
        return Response(text, headers={"Content-Type": METRICS_TYPE, **_FRESH})

    return [Route("/health", live), Route("/health/ready", ready), Route("/metrics", metrics)]


def problems(services: Services) -> Iterator[tuple[str, str]]:
    """What keeps jobs from being done: which part it is, and a sentence."""
    try:
        services.ledger.job_counts()
    except StudioError as error:
        yield "ledger", str(error)
    if not services.runner.is_working:
        yield "worker", "Nobody works on jobs: the worker has ended. Start the studio anew."
    if problem := _disk_problem(services):
        yield "disk", problem


def _disk_problem(services: Services) -> str:
    folder = services.settings.data_dir
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"written")
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError:
        return "The data folder cannot be written. Give it back, free some space, or choose another one."
    if free < LEAST_FREE_BYTES:
        return f"Only {free / 1e6:.0f} MB are free where data are kept; {LEAST_FREE_BYTES / 1e6:.0f} are needed."
    return ""
