"""What a training run tells while it goes on: lines of JSON, in its folder and between its process and the studio."""

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
    """`step` of `total` is done. `loss` is the mean since the last word of it, `step_s` what a step takes."""

    kind: Literal["trained"] = "trained"
    step: int
    total: int
    loss: float
    step_s: float


class Looked(_Line):
    """Samples of step `step` are drawn. `right` of `checked` show what their prompt says, None where nobody can tell;
    `distance` is how far four steps land from where the teacher does, root mean square in its latents."""

    kind: Literal["looked"] = "looked"
    step: int
    prompts: tuple[str, ...] = ()
    """Of the samples that are kept."""
    right: int | None = None
    checked: int = 0
    distance: float

    @property
    def rank(self) -> tuple[float, float]:
        """The larger, the better."""
        return (float(self.right or 0), -self.distance)

    @property
    def words(self) -> str:
        """The measure in words."""
        if self.right is not None:
            return f"{self.right} of {self.checked} drawn right in four steps"
        return f"{self.distance:.3f} from the teacher's pictures in four steps"


class Exported(_Line):
    """The best adapter so far, that of step `step`, lies in the run's folder."""

    kind: Literal["exported"] = "exported"
    step: int


class Broken(_Line):
    """The run cannot go on."""

    kind: Literal["broken"] = "broken"
    message: str
    hint: str


RunEvent = Preparing | Trained | Looked | Exported | Broken
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
