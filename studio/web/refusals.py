"""From the studio's errors to those of HTTP, which each interface puts into its own form."""

import re
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from studio.domain.errors import (
    CorruptModel,
    DatasetError,
    DownloadFailed,
    GenerationFailed,
    Incompatible,
    InvalidRequest,
    JobCancelled,
    NotFound,
    OutOfMemory,
    QueueFull,
    RateLimited,
    StorageFailed,
    StudioError,
)
from studio.unexpected import unexpected

RETRY_AFTER_S = 10
"""When to ask again where too much waits: a picture of a small model takes about as long."""
_STATUSES: tuple[tuple[type[StudioError], int], ...] = (
    (InvalidRequest, 422),
    (Incompatible, 422),
    (DatasetError, 422),
    (CorruptModel, 422),
    (NotFound, 404),
    (RateLimited, 429),
    (QueueFull, 503),
    (DownloadFailed, 502),
    (OutOfMemory, 507),
    (StorageFailed, 507),
    (GenerationFailed, 500),
)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Those that an interface has an answer of its own to, whatever it does."""

Endpoint = Callable[[Request], Awaitable[Response]]


class Refused(StudioError):
    """Something that only HTTP knows is wrong with a request; `status` and `word` say what, to programs."""

    def __init__(self, status: int, word: str, message: str, hint: str = "", headers: Mapping[str, str] = {}) -> None:
        super().__init__(message, hint)
        self.status = status
        self.word = word
        self.headers = dict(headers)


def answered(endpoint: Endpoint, refusal: Callable[[StudioError], Response]) -> Endpoint:
    """`endpoint` with every error in the form that `refusal` gives it: nothing else leaves the studio."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as error:
            return refusal(told(error))

    return answer


def told(error: Exception) -> StudioError:
    """What a client is told of `error`: itself where people are meant to read it, else an id; the log has the rest."""
    if isinstance(error, StudioError):
        return error
    if isinstance(error, JobCancelled):
        return Refused(503, "cancelled", "The pictures were cancelled before they were ready.")
    return unexpected(error)


def status_of(error: StudioError) -> int:
    """The HTTP status that says best what `error` says."""
    if isinstance(error, Refused):
        return error.status
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def headers_of(error: StudioError) -> dict[str, str]:
    """When to try again, where that helps, and what else belongs to `error`."""
    match error:
        case Refused():
            return error.headers
        case RateLimited():
            return {"Retry-After": str(max(1, round(error.retry_after_s)))}
        case QueueFull():
            return {"Retry-After": str(RETRY_AFTER_S)}
        case _:
            return {}


def word_of(error: StudioError) -> str:
    """A word that stays the same, for programs: `InvalidRequest` → `invalid_request`."""
    if isinstance(error, Refused):
        return error.word
    return name_of(error)


def name_of(value: object) -> str:
    """What kind of thing it is, as programs write it: an `ImageReady` is an `image_ready`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(value).__name__).lower()
