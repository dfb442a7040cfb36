"""How errors leave in the form of OpenAI's API: `{"error": {message, type, param, code}}`."""

from typing import Any

from starlette.responses import JSONResponse

from studio.domain.errors import Incompatible, InvalidRequest, NotFound, QueueFull, RateLimited, StudioError
from studio.web.refusals import Refused, headers_of, status_of, word_of

_NO_RETRY = {"x-should-retry": "false"}
"""OpenAI's clients ask again after every 5xx unless told not to, and would draw twice what failed or was stopped."""
_CODES = {
    "wrong_content_type": "unsupported_media_type",
    "too_large": "request_too_large",
    "not_json": "invalid_value",
    "too_deep": "invalid_value",
}
"""Words of ours → theirs; those of `Refused` that are missing are theirs already."""


class UnknownModel(NotFound):
    """A model that is neither a checkpoint nor stands for one."""


def error_body(error: StudioError) -> dict[str, Any]:
    """The body that tells of `error`."""
    status = _status(error)
    kind = "rate_limit_error" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
    param = error.field if isinstance(error, InvalidRequest) else None
    param = "model" if isinstance(error, UnknownModel) else param
    return {"error": {"message": str(error), "type": kind, "param": param or None, "code": _code(error)}}


def refusal(error: StudioError) -> JSONResponse:
    """The answer to a request that `error` ended."""
    status, headers = _status(error), headers_of(error)
    return JSONResponse(error_body(error), status, headers=headers or (_NO_RETRY if status >= 500 else {}))


def _status(error: StudioError) -> int:
    return 400 if isinstance(error, InvalidRequest | Incompatible) else status_of(error)


def _code(error: StudioError) -> str | None:
    match error:
        case Refused():
            return _CODES.get(error.word, error.word)
        case UnknownModel():
            return "model_not_found"
        case InvalidRequest():
            return "invalid_value"
        case RateLimited():
            return "rate_limit_exceeded"
        case QueueFull():
            return word_of(error)
        case _:
            return None
