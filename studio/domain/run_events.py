"""What a training run tells while it goes on: lines of JSON, in its folder and between its process and the studio."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Preparing(_Line):
    """`done` of `total` pictures are read or drawn and kept."""

    kind: Literal["preparing"] = "preparing"
    done: int
    total: int


class Trained(_Line):
    """`step` of `total` is done. `loss` is the mean since the last word of it, `step_s` what a step takes; `rate` is
    the learning rate, `memory_mb` what the process holds, `look_s` what the last look at samples took. Whoever does not
    know the last four leaves them out."""

    kind: Literal["trained"] = "trained"
    step: int
    total: int
    loss: float
    step_s: float
    rate: float | None = None
    images_s: float | None = None
    memory_mb: float | None = None
    look_s: float | None = None


class Looked(_Line):
    """Samples of step `step` are drawn. `right` of `checked` show what their prompt says, None where nobody can tell.

    `distance` is how far a distilled student's four steps land from where the teacher does, root mean square in its
    latents; `validation` is an adapter's loss on pictures that it does not learn from. Each is None where it has no
    meaning.
    """

    kind: Literal["looked"] = "looked"
    step: int
    prompts: tuple[str, ...] = ()
    """Of the samples that are kept."""
    right: int | None = None
    checked: int = 0
    distance: float | None = None
    validation: float | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """The larger, the better; where nothing is measured, the later."""
        error = self.distance if self.validation is None else self.validation
        return (float(self.right or 0), float(self.step) if error is None else -error)

    def is_as_good_as(self, peak: "Looked") -> bool:
        """Whether this look, a later one, is no worse than `peak` but for luck: within a standard error of what that
        draws right (Breiman et al., 1984, the one-standard-error rule). Of a few pictures one more is luck, and what
        has learnt longer is steadier."""
        if self.right is None or peak.right is None or not self.checked or self.checked != peak.checked:
            return False
        share = peak.right / peak.checked
        return self.right >= peak.right - math.sqrt(peak.checked * share * (1 - share))

    @property
    def words(self) -> str:
        """The measures in words."""
        if self.distance is not None:
            if self.right is not None:
                return f"{self.right} of {self.checked} drawn right in four steps"
            return f"{self.distance:.3f} from the teacher's pictures in four steps"
        parts = [] if self.right is None else [f"{self.right} of {self.checked} drawn right"]
        parts += [] if self.validation is None else [f"validation loss {self.validation:.4f}"]
        return ", ".join(parts) or "nothing measured"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a run stands after some of its looks: `peak` measured best, which may be luck, and `best` is kept: where
    pictures were judged, the latest that is as good as any."""

    best: Looked | None = None
    peak: Looked | None = None

    def after(self, look: Looked) -> "Standing":
        """How it stands with one more look; the untrained model's gives way to any."""
        if self.peak is None or not self.peak.step or look.rank > self.peak.rank:
            return Standing(best=look, peak=look)
        return Standing(best=look, peak=self.peak) if look.is_as_good_as(self.peak) else self


def best_look(looks: Iterable[Looked]) -> Looked | None:
    """The best, as a run keeps it. None of none; the untrained model's does not count."""
    return reduce(Standing.after, (look for look in looks if look.step), Standing()).best


class Settled(_Line):
    """The run ended at step `step`, before its last: nothing had got better for a while."""

    kind: Literal["settled"] = "settled"
    step: int


class Exported(_Line):
    """The best adapter so far, that of step `step`, lies in the run's folder."""

    kind: Literal["exported"] = "exported"
    step: int


class Broken(_Line):
    """The run cannot go on."""

    kind: Literal["broken"] = "broken"
    message: str
    hint: str


RunEvent = Preparing | Trained | Looked | Settled | Exported | Broken
_ADAPTER: TypeAdapter[RunEvent] = TypeAdapter(Annotated[RunEvent, Field(discriminator="kind")])


def line_of(event: RunEvent) -> str:
    """One line of JSON, with its end."""
    return event.model_dump_json() + "\n"


def event_of(line: str | bytes) -> RunEvent | None:
    """The event that a line tells; None for one that was cut short, or that a newer studio wrote."""
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError:
        return None
