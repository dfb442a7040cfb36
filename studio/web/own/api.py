"""Our own JSON API, below `/api/v1`."""

import json
from functools import cache

from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute

from studio.services import Services
from studio.web.bodies import JSON
from studio.web.own.answers import Asked, Operation, otherwise
from studio.web.own.catalogue import CATALOGUE_OPERATIONS
from studio.web.own.description import document, page
from studio.web.own.jobs import JOB_OPERATIONS
from studio.web.own.pictures import PICTURE_OPERATIONS


def own_routes(services: Services) -> list[BaseRoute]:
    """Every operation, and an answer in our own words to what is none."""
    routes: list[BaseRoute] = [operation.route(services) for operation in OPERATIONS]
    return [*routes, otherwise(routes)]


@cache
def _document() -> str:
    return json.dumps(document(OPERATIONS))


@cache
def _page() -> str:
    return page(document(OPERATIONS))


def _openapi(_: Asked) -> Response:
    return Response(_document(), media_type=JSON)


def _docs(_: Asked) -> Response:
    return HTMLResponse(_page(), headers={"X-Content-Type-Options": "nosniff"})


OPERATIONS = (
    *JOB_OPERATIONS,
    *PICTURE_OPERATIONS,
    *CATALOGUE_OPERATIONS,
    Operation(method="GET", path="/openapi.json", title="This description, for programs", run=_openapi),
    Operation(method="GET", path="/docs", title="This description, for people", run=_docs, media_type="text/html"),
    Operation(method="GET", path="/", title="The same page", run=_docs, media_type="text/html"),
)
