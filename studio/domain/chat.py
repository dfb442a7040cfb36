"""What a language model is asked and what it answers, whoever runs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from studio.domain.errors import StudioError

ChatReason = Literal[
    "offline",  # the settings forbid it
    "no_key",
    "refused",  # 401, 403: the key is wrong or may not
    "model_gone",  # 404: retired, or never there
    "busy",  # 429, 498: a limit is reached
    "server",  # 408, 409, 424, 499 and 5xx: it may work later
    "unreachable",  # no connection, or no answer in time
    "too_large",  # 413
    "rejected",  # any other 4xx: asking the same again gives the same
    "garbage",  # an answer that is none
]
_WORTH_A_RETRY: frozenset[ChatReason] = frozenset({"busy", "server", "unreachable", "garbage"})

Message = Mapping[str, Any]
"""`role` and `content` as OpenAI's chat API has them; `content` is a text, or parts of text and pictures."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model said, and what that took.

    `is_cut` where it reached the limit of tokens. `headers` are those of the response, their names in small letters:
    they tell what is left of a limit.
    """

    text: str
    model: str
    is_cut: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class ChatFailed(StudioError):
    """A language model gave no answer that can be used.

    `status` is the HTTP status, if there was one; `retry_after` how many seconds the service asked to wait, None where
    it said nothing that can be read.
    """

    def __init__(
        self,
        reason: ChatReason,
        message: str,
        hint: str = "",
        *,
        status: int | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.reason: ChatReason = reason
        self.status = status
        self.retry_after = retry_after
        self.headers: Mapping[str, str] = headers or {}

    @property
    def may_pass(self) -> bool:
        """Whether asking again, later, may help."""
        return self.reason in _WORTH_A_RETRY
