"""Captions that are made for pictures: what is kept of each, what makes them, and what may be wrong with one."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from sys import intern
from typing import Any, Protocol

from studio.domain.datasets import caption_of
from studio.domain.errors import StudioError

MAX_ROW_BYTES = 200_000
"""Of a line in a shard: more than a caption of the longest kind takes, whatever its alphabet."""
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_TIME_FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z", re.ASCII)


class Status(StrEnum):
    """What came of a picture."""

    DONE = "done"
    UNUSABLE = "unusable"
    """An answer came, and it is no caption; it may have cost something. The next run asks again."""
    FAILED = "failed"
    """The picture cannot be captioned by this captioner. Only a list of what to do again has it tried once more."""


class Flag(StrEnum):
    """What may be wrong with a caption."""

    EMPTY = "empty"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    REFUSAL = "refusal"
    REPETITION = "repetition"
    PREAMBLE = "preamble"
    """It talks to whoever asked: "Sure, here is a description"."""
    MARKUP = "markup"
    MISMATCH = "mismatch"
    """A judge finds that it fits its picture worse than most other captions do."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a shard. `digest` is the SHA-256 of the picture's file, by which a caption finds its picture whatever
    that is called by then; `name` is what it was called. `template` says what was asked for, `at` when the answer came
    (UTC, so that text order is order in time); the tokens are what was paid, 0 where nothing was."""

    digest: bytes
    name: str
    status: Status
    caption: str
    reason: str
    captioner: str
    template: str
    at: str
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def line(self) -> bytes:
        """The row as a line of JSON, its end included."""
        values = {
            "sha256": self.digest.hex(), "name": self.name, "status": self.status, "caption": self.caption,
            "reason": self.reason, "captioner": self.captioner, "template": self.template, "at": self.at,
            "prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
        }  # fmt: skip
        return json.dumps(values, separators=(",", ":")).encode() + b"\n"  # ASCII, so that any file name fits


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that there is: the name by which its folder has it, and the SHA-256 of its file."""

    name: str
    digest: bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a captioner says, and what it cost; `by` names what answered, where that is not the captioner itself."""

    caption: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    by: str = ""


class Captioner(Protocol):
    """Says what a picture shows."""

    @property
    def name(self) -> str:
        """What it is, as rows name it: `groq:qwen/qwen3.6-27b`."""
        ...

    @property
    def template(self) -> str:
        """What it is asked for: two with the same template do the same work, and what one did the other leaves."""
        ...

    def caption(self, path: Path) -> Answer:
        """A caption of the picture in a file.

        Raises:
            Unfit: this picture cannot be captioned.
            Unusable: what came is no caption.
            Later: not now.
            StudioError: no picture can be captioned any more.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class Unfit(Exception):
    """A picture that a captioner can do nothing with; the text says why."""


class Unusable(Exception):
    """An answer that is no caption. `answer` is what came and what it cost, cut to a length that is kept."""

    def __init__(self, reason: str, answer: Answer) -> None:
        super().__init__(reason)
        self.answer = answer


class Later(Exception):
    """An attempt that failed for now. `seconds` is how long to wait, None where nobody says; with `is_for_all`, no
    other picture need be tried before."""

    def __init__(self, reason: str, seconds: float | None = None, *, is_for_all: bool = False) -> None:
        super().__init__(reason)
        self.seconds = seconds
        self.is_for_all = is_for_all


class CaptioningStopped(StudioError):
    """Captions cannot be made any more, for now; those that were made are kept."""


def now() -> str:
    """This moment as rows have it."""
    return datetime.now(UTC).strftime(_TIME)


def row_of(line: bytes) -> Row:
    """The row that a line holds, with or without its end.

    Raises:
        ValueError: it is none; the text says why.
    """
    if len(line) > MAX_ROW_BYTES:
        raise ValueError(f"it has more than {MAX_ROW_BYTES:,} bytes")
    try:
        values: Any = json.loads(line.removeprefix(b"\xef\xbb\xbf").decode())
    except UnicodeDecodeError:
        raise ValueError("it is not in UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    try:
        return _checked(values)  # pyright: ignore[reportUnknownArgumentType]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError("it is no row of a shard") from None


def _checked(values: dict[str, Any]) -> Row:
    digest, at = bytes.fromhex(values["sha256"]), values["at"]
    status = Status(values["status"])
    caption = caption_of(values["caption"])
    if len(digest) != 32 or not _TIME_FORM.match(at) or (status is Status.DONE and not caption):
        raise ValueError
    tokens = values["prompt_tokens"], values["completion_tokens"]
    if not all(type(count) is int and 0 <= count < 2**40 for count in tokens):
        raise ValueError
    texts = values["name"], values["reason"], values["captioner"], values["template"]
    if not all(type(text) is str for text in texts):
        raise ValueError
    name, reason, captioner, template = texts
    return Row(digest, name, status, caption, reason, intern(captioner), intern(template), at, *tokens)
