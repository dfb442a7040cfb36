"""One question to a model at Groq, one answer: no retries, every failure named. Who may wait decides what follows.

The key is read from GROQ_API_KEY at every question, so that it can be changed, and is kept out of errors and logs.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import responses
from typing import Any, TypeVar

from studio.domain.chat import Answer, ChatFailed, ChatReason, Message
from studio.settings import Settings

logger = logging.getLogger(__name__)
_T = TypeVar("_T")

KEY = "GROQ_API_KEY"
ADDRESS = "GROQ_BASE_URL"
MAX_ANSWER_BYTES = 1_000_000
"""No answer of a few thousand tokens is longer."""
MODELS_FRESH_S = 3600.0
_CONNECT_S = 5.0
_OWN_PATH = "/openai/v1"
"""The client adds it to the address, which other programs are given with it."""
_LATER = (408, 409, 424, 499)


@dataclass
class _Known:
    """The models that the service lists, and those that it said are gone, for one key at one address."""

    listed: frozenset[str] = frozenset()
    until: float = 0.0
    gone: set[str] = field(default_factory=set[str])


class GroqChat:
    """Asks models at Groq through its own client. May be used from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._client: Any = None
        self._opened_for: tuple[str, str] | None = None
        self._known = _Known()

    @property
    def missing(self) -> ChatReason | None:
        """Why nothing can be asked at all, if so."""
        if self._settings.offline:
            return "offline"
        return None if os.environ.get(KEY, "").strip() else "no_key"

    def ask(
        self,
        models: Sequence[str],
        messages: Sequence[Message],
        *,
        max_tokens: int = 1500,
        timeout_s: float = 60.0,
        as_json: bool = False,
    ) -> Answer:
        """Ask the first of `models` that is there. One that is retired is passed over, and that is logged.

        Args:
            models: Ids, the best first.
            messages: What is said to it.
            max_tokens: At most so many are answered, those of its thoughts counted.
            timeout_s: The whole answer must be there by then.
            as_json: Ask for a JSON object.

        Raises:
            ChatFailed: there is no answer; `reason` says why.
        """
        deadline = time.monotonic() + timeout_s
        client = self._opened()
        for model in self._offered(client, models, deadline):
            wishes = _wishes(model, as_json)
            try:
                return self._asked(client, model, messages, max_tokens, deadline, wishes)
            except ChatFailed as error:
                if error.reason == "model_gone":
                    self._known.gone.add(model)
                    logger.warning("%s is not to be had at Groq; the next model is asked", model)
                    continue
                if error.status != 400 or not wishes:
                    raise
            # Which wishes a model knows changes with its version: the question itself needs none of them.
            logger.info("%s did not take %s; asked without", model, ", ".join(wishes))
            return self._asked(client, model, messages, max_tokens, deadline, {})
        raise ChatFailed(
            "model_gone",
            f"Groq has none of the models {', '.join(models)} any more.",
            "Name one that it lists in FLASH_STUDIO_GROQ_TEXT_MODELS or FLASH_STUDIO_GROQ_VISION_MODELS.",
            status=404,
        )

    def close(self) -> None:
        """Let go of connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = self._opened_for = None

    def _opened(self) -> Any:
        missing = self.missing
        if missing == "offline":
            raise ChatFailed("offline", "The studio is offline by its settings.", "Unset FLASH_STUDIO_OFFLINE.")
        if missing == "no_key":
            raise ChatFailed("no_key", "There is no key for Groq.", f"Put it into the variable {KEY}.")
        key, address = os.environ[KEY].strip(), os.environ.get(ADDRESS, "").strip().rstrip("/")
        with self._lock:
            if self._opened_for != (key, address):
                if self._client is not None:
                    self._client.close()
                self._client = _client(key, address.removesuffix(_OWN_PATH))
                self._opened_for, self._known = (key, address), _Known()
            return self._client

    def _offered(self, client: Any, models: Sequence[str], deadline: float) -> Iterator[str]:
        """Those of `models` that are listed, in order; all that are not known to be gone where no list can be had."""
        known = self._known
        if time.monotonic() > known.until:
            ask = client.models.with_streaming_response.list
            try:
                _, body = _named(client, lambda: _read(ask(timeout=_timeout(deadline)), deadline))
                known.listed = frozenset(str(row["id"]) for row in body["data"])
            except (ChatFailed, KeyError, TypeError) as error:
                if isinstance(error, ChatFailed) and error.reason in ("refused", "unreachable"):
                    raise
                logger.info("Groq's list of models cannot be read; they are tried in turn")
            known.until = time.monotonic() + MODELS_FRESH_S
        for model in models:
            if known.listed and model not in known.listed:
                logger.warning("Groq does not list %s; the next model is asked", model)
            elif model not in known.gone:
                yield model

    def _asked(
        self,
        client: Any,
        model: str,
        messages: Sequence[Message],
        max_tokens: int,
        deadline: float,
        wishes: Mapping[str, Any],
    ) -> Answer:
        request = client.chat.completions.with_streaming_response.create
        asked = {"model": model, "messages": list(messages), "max_completion_tokens": max_tokens, **wishes}
        headers, body = _named(client, lambda: _read(request(timeout=_timeout(deadline), **asked), deadline))
        return _answer(model, headers, body)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a response asks to wait, however many; None where it does not say, or not readably."""
    told = headers.get("retry-after", "").strip()
    if not told:
        return None
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def _client(key: str, address: str) -> Any:
    from groq import Groq  # imported here: half a second that nobody without a key need wait for

    return Groq(api_key=key, base_url=address or None, max_retries=0)


def _timeout(deadline: float) -> Any:
    import httpx

    return httpx.Timeout(max(0.1, deadline - time.monotonic()), connect=_CONNECT_S)


def _wishes(model: str, as_json: bool) -> dict[str, Any]:
    """What is asked of a model beside the question: few thoughts, none of them in the answer."""
    wishes: dict[str, Any] = {"response_format": {"type": "json_object"}} if as_json else {}
    if "gpt-oss" in model:
        wishes |= {"reasoning_effort": "low", "include_reasoning": False}
    elif "qwen3" in model:
        wishes |= {"reasoning_effort": "none", "reasoning_format": "hidden"}
    return wishes


def _read(request: Any, deadline: float) -> tuple[dict[str, str], Any]:
    """The headers and the JSON of a response, read piece by piece: the client's own limit is one on each piece."""
    with request as response:
        headers = {str(name).lower(): str(value) for name, value in response.headers.items()}
        data = b""
        for piece in response.iter_bytes():
            data += piece
            if time.monotonic() > deadline:
                raise ChatFailed("unreachable", "Groq's answer did not come to its end in time.", "Try again later.")
            if len(data) > MAX_ANSWER_BYTES:
                raise _garbage("is longer than any answer", headers)
    try:
        return headers, json.loads(data)
    except (ValueError, RecursionError):
        raise _garbage("is no JSON", headers) from None


def _answer(model: str, headers: Mapping[str, str], body: Any) -> Answer:
    try:
        choice = body["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise _garbage("holds no answer", headers) from None
    if not isinstance(text, str) or not without_thoughts(text):
        raise _garbage("is empty", headers)
    used: dict[str, Any] = body["usage"] if isinstance(body.get("usage"), dict) else {}
    return Answer(
        text=without_thoughts(text),
        model=model,
        is_cut=choice.get("finish_reason") == "length",
        prompt_tokens=_count(used.get("prompt_tokens")),
        completion_tokens=_count(used.get("completion_tokens")),
        headers=headers,
    )


def without_thoughts(text: str) -> str:
    """An answer without what a model said to itself before it, in `<think>` and `</think>`."""
    told = text.rpartition("</think>")[2]
    return "" if told.lstrip().startswith("<think>") else told.strip()


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _garbage(what: str, headers: Mapping[str, str]) -> ChatFailed:
    return ChatFailed("garbage", f"What came from Groq {what}.", "Try again.", status=200, headers=headers)


def _named(client: Any, work: Callable[[], _T]) -> _T:
    """Do `work`; what the client raises becomes a ChatFailed: its own errors hold on to the request and its key."""
    import groq
    import httpx

    try:
        return work()
    except groq.APIStatusError as error:
        failure = _status_failure(error, client.api_key)
    except (groq.APIConnectionError, httpx.HTTPError):
        address = str(client.base_url).split("/openai")[0]
        failure = ChatFailed("unreachable", f"{address} does not answer.", "Check the connection, or try again later.")
    except groq.GroqError:
        failure = ChatFailed("garbage", "What came from Groq cannot be read.", "Try again.")
    raise failure  # behind the handler: no context, and so no request with its key


def _status_failure(error: Any, key: str) -> ChatFailed:
    status = int(error.status_code)
    headers = {str(name).lower(): str(value) for name, value in error.response.headers.items()}
    said = _said(error.body).replace(key, "…")
    name = f"{status} {responses.get(status, '')}".strip()
    told = f"Groq answered {name}" + (f": {said}" if said else ".")
    reason, hint = _reason(status)
    return ChatFailed(reason, told, hint, status=status, retry_after=retry_after(headers), headers=headers)


def _reason(status: int) -> tuple[ChatReason, str]:
    if status in (401, 403):
        return "refused", f"Check the key in {KEY}."
    if status == 404:
        return "model_gone", "Name another model in the settings."
    if status == 413:
        return "too_large", "Send less at once."
    if status in (429, 498):
        return "busy", "A limit of the key is reached; try again later."
    if status in _LATER or status >= 500:
        return "server", "Try again later."
    return "rejected", "Asking the same again gives the same answer."


def _said(body: Any) -> str:
    """The service's own sentence, shortened: it is shown to people."""
    try:
        said = str(body["error"]["message"])
    except (KeyError, TypeError):
        return ""
    said = " ".join(said.split())
    return said if len(said) <= 200 else f"{said[:199]}…"
