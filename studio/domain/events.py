"""What happens to a job, told as values. A job's stream holds exactly one terminal event, and it is the last."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Event:
    """`index` counts a job's events from 0; `time` is seconds since the epoch."""

    job_id: str
    index: int
    time: float


@dataclass(frozen=True, kw_only=True)
class Queued(Event):
    """The job waits behind `ahead` others, about `wait_s` seconds; None where nobody knows yet how long jobs take."""

    ahead: int
    wait_s: float | None


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """A worker took the job."""


@dataclass(frozen=True, kw_only=True)
class Drawing(Event):
    """What was not made before is drawn now, as soon as the model is ready."""


@dataclass(frozen=True, kw_only=True)
class Fetching(Event):
    """The model's weights come from the hub: `done_bytes` of `total_bytes` are here."""

    done_bytes: int
    total_bytes: int
    eta_s: float | None


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """`step` of `total` is done. `preview` is a PNG or JPEG of the picture so far (bytes), or None."""

    step: int
    total: int
    image_index: int
    num_images: int
    eta_s: float | None
    phase: str
    preview: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Held(Event):
    """What is made cannot be kept now: `message` says why, `hint` what to do. Nothing of it is lost; the job goes on by
    itself as soon as it can."""

    message: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class ImageReady(Event):
    """An image is saved and recorded in the ledger under `image_id`. That of another job was made before, and is
    reused."""

    image_id: str
    image_index: int


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """Terminal: everything asked for is there."""

    summary: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """Terminal: `message` says what happened, `hint` what to do."""

    message: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Cancelled(Event):
    """Terminal: the owner stopped it; images that were ready stay."""


TERMINAL = (Finished, Failed, Cancelled)
