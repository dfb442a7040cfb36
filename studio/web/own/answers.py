"""How our own API is asked and how it answers: operations that describe themselves, and one form for every error."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from studio.domain.errors import InvalidRequest, NotFound, StudioError
from studio.services import Services
from studio.web.access import Caller, caller_of
from studio.web.bodies import JSON, read_json
from studio.web.refusals import METHODS, Refused, answered, headers_of, status_of, word_of

PREFIX = "/api/v1"
_LONGEST_TEXT = 2000

ModelT = TypeVar("ModelT", bound=BaseModel)


class View(BaseModel):
    """What an answer tells."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ErrorView(View):
    """What went wrong, for a person and for a program."""

    message: str
    """What was got and what was expected, in one sentence."""
    hint: str
    """What to do now; may be empty."""
    field: str | None
    """Which value of the request is meant, where it is one."""
    type: str
    """A word that stays the same, such as `invalid_request` or `not_found`."""


class ErrorAnswer(View):
    """How every error leaves."""

    error: ErrorView


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as an operation meets it; `values` is its body, empty where the operation takes none."""

    services: Services
    request: Request
    values: dict[str, Any]

    @cached_property
    def caller(self) -> Caller:
        return caller_of(self.request, self.services.settings)

    def id_of(self, name: str) -> str:
        """A part of the path."""
        return self.request.path_params[name]

    def query(self, model: type[ModelT]) -> ModelT:
        """What stands behind the question mark; raises InvalidRequest where it does not fit `model`."""
        return parsed(model, dict(self.request.query_params))


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path: what it does, what it takes, what it answers. Routes and their description are made of
    the same ones."""

    method: str
    path: str
    title: str
    run: Callable[[Asked], BaseModel | Response]
    """Called in a thread of its own; raises a StudioError."""
    answer: type[BaseModel] | None = None
    media_type: str = JSON
    status: int = 200
    takes: Sequence[type[BaseModel]] = ()
    """What a body may be, one of these."""
    query: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Headers that it reads, with what they mean."""
    refuses: Sequence[int] = ()
    """Statuses of its errors, beside those that every operation has."""
    empty: str = ""
    """When it answers nothing (204), where it ever does."""

    @property
    def parameters(self) -> list[str]:
        """What stands in curly brackets in the path."""
        return re.findall(r"{(\w+)}", self.path)

    def route(self, services: Services) -> Route:
        """Where it is reached."""

        async def answer(request: Request) -> Response:
            values = await read_json(request) if self.takes else {}
            asked = Asked(services=services, request=request, values=values)
            made = await run_in_threadpool(self.run, asked)
            return made if isinstance(made, Response) else json_answer(made, self.status)

        return Route(PREFIX + self.path, answered(answer, refusal), methods=[self.method])


def otherwise(routes: Sequence[BaseRoute]) -> Route:
    """What answers below the prefix where none of `routes` does: another path, or another method of one of them."""

    async def answer(request: Request) -> Response:
        partial = [route for route in routes if route.matches(request.scope)[0] is Match.PARTIAL]
        allowed = sorted({method for route in partial if isinstance(route, Route) for method in route.methods or ()})
        if not allowed:
            raise NotFound("There is no such address.", f"{PREFIX}/docs lists those there are.")
        names = ", ".join(allowed)
        raise Refused(
            405, "wrong_method", f"{request.method} is nothing that this address does.", f"It does {names}.",
            {"Allow": names},
        )  # fmt: skip

    return Route(PREFIX + "/{rest:path}", answered(answer, refusal), methods=list(METHODS))


def json_answer(view: BaseModel, status: int = 200, headers: Mapping[str, str] = {}) -> Response:
    """`view` as JSON that nobody keeps: it is told anew each time."""
    return Response(
        view.model_dump_json(), status, media_type=JSON, headers={"Cache-Control": "no-store", **headers}
    )  # fmt: skip


def refusal(error: StudioError) -> Response:
    """Any error in the one form."""
    view = {
        "message": error.message[:_LONGEST_TEXT],
        "hint": error.hint[:_LONGEST_TEXT],
        "field": error.field if isinstance(error, InvalidRequest) else None,
        "type": word_of(error),
    }
    # In ASCII: what was sent may hold half a character, and comes back in the sentence.
    text = json.dumps({"error": view})
    return Response(text, status_of(error), media_type=JSON, headers={"Cache-Control": "no-store", **headers_of(error)})


def parsed(model: type[ModelT], values: Mapping[str, Any]) -> ModelT:
    """`values` as a `model`.

    Raises:
        InvalidRequest: naming the first value that is wrong, by its whole path.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            raise InvalidRequest(f"There is no setting called {field!r}.", f"There are: {known}.", field) from None
        if problem["type"] == "missing":
            raise InvalidRequest(f"There is no {field}.", "Give it, too.", field) from None
        got, expected = short(problem["input"]), problem["msg"][:1].lower() + problem["msg"][1:]
        raise InvalidRequest(f"{field} is {got}, which does not work: {expected}.", "", field) from None


def short(value: Any) -> str:
    """A value as a sentence shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
