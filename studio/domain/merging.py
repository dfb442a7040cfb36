"""Several adapters made into one, or worked into a checkpoint: what is asked for, and in which ways it can be done."""

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.domain.adapter import MAX_LORA_SCALE
from studio.domain.errors import InvalidRequest

MergeMethod = Literal["svd", "cat", "linear", "ties", "ties_svd", "dare_linear", "dare_ties", "dare_ties_svd"]
"""As PEFT's `add_weighted_adapter` calls them."""
MajoritySign = Literal["total", "frequency"]

MERGE_METHODS: Mapping[MergeMethod, str] = {
    "svd": "the exact sum, then the best of it that a rank holds",
    "cat": "the exact sum, as large as all of them together",
    "linear": "a rough sum of the factors, as small as one of them",
    "ties": "the largest numbers of each, where most agree which way to go, factor by factor",
    "ties_svd": "as ties, of whole weights",
    "dare_linear": "chance drops numbers and strengthens the rest, then linear",
    "dare_ties": "chance drops numbers and strengthens the rest, then ties",
    "dare_ties_svd": "as dare_ties, of whole weights",
}
"""What each does, in words."""
DENSITY = 0.5
"""The share of numbers that is kept where none is named: a careful half. Of whole fine-tunings the papers keep a fifth
(TIES, arXiv 2306.01708) and a tenth (DARE, arXiv 2311.03099)."""
MERGE_KEY = "flash_studio_merge"
"""Under this key the metadata of a merged file say what it came of, as JSON."""


MERGED_FILE = "merged.json"
"""In a checkpoint's folder it says what that came of: a `MergedCheckpoint`."""


class Portion(BaseModel):
    """An adapter and how much of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    adapter: Annotated[str, Field(min_length=1)]
    weight: Annotated[float, Field(ge=-MAX_LORA_SCALE, le=MAX_LORA_SCALE)] = 1.0


class MergeRequest(BaseModel):
    """What was asked. A rank of None takes the largest that an adapter has, layer by layer; `density` is None where
    nothing is dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(min_length=1, max_length=80, pattern=r"\S")]
    portions: Annotated[tuple[Portion, ...], Field(min_length=2)]
    method: MergeMethod = "svd"
    rank: Annotated[int | None, Field(ge=1, le=1024, title="How much the new one can hold — rank")] = None
    density: Annotated[float | None, Field(gt=0, le=1, title="How much of each is kept — density")] = None
    majority_sign: Annotated[MajoritySign, Field(title="Where they disagree, this wins — majority sign")] = "total"
    seed: Annotated[int, Field(ge=0, le=2**32 - 1, title="Number that decides what chance drops — seed")] = 0


class WorkedIn(BaseModel):
    """An adapter that a checkpoint's weights were changed by; `text_encoder_scale` of None is as much as
    `lora_scale`."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    adapter: Annotated[str, Field(max_length=200)]
    lora_scale: float
    text_encoder_scale: float | None = None
    sha256: Annotated[str, Field(max_length=64)] | None = None
    trigger_words: Annotated[tuple[Annotated[str, Field(max_length=100)], ...], Field(max_length=50)] = ()

    @property
    def words(self) -> str:
        """The adapter and how much of it."""
        text = "" if self.text_encoder_scale is None else f" (text encoder × {self.text_encoder_scale:g})"
        return f"{self.adapter} × {self.lora_scale:g}{text}"


class MergedCheckpoint(BaseModel):
    """What a checkpoint came of that has adapters worked into its weights."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    base: Annotated[str, Field(max_length=200)]
    base_title: Annotated[str, Field(max_length=200)]
    base_sha256: Annotated[str, Field(max_length=64)]
    adapters: Annotated[tuple[WorkedIn, ...], Field(min_length=1, max_length=100)]
    licences: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=100)] = ()

    @property
    def note(self) -> str:
        """What it is, and which words call up what was worked in."""
        words = dict.fromkeys(word for adapter in self.adapters for word in adapter.trigger_words[:1])
        say = f" Say {' and '.join(f'“{word}”' for word in words)}." if words else ""
        return f"{self.base_title} with {' and '.join(adapter.words for adapter in self.adapters)} worked in.{say}"


_EXPECTED = {
    "name": "Give it a short one.",
    "portions": f"Name at least two, each with a weight from {-MAX_LORA_SCALE:g} to {MAX_LORA_SCALE:g}: ID:WEIGHT.",
    "method": f"There are {', '.join(MERGE_METHODS)}.",
    "rank": "A whole number from 1 to 1024.",
    "density": "A number above 0, up to 1: the share of numbers that is kept.",
    "majority_sign": "It is total or frequency.",
    "seed": "A whole number from 0 to 4294967295.",
}
"""Field of the request → what it can be."""


def title(field: str) -> str:
    """The label of a field's control."""
    return MergeRequest.model_fields[field].title or field


def drops_numbers(method: MergeMethod) -> bool:
    """Whether a method has a density."""
    return method.startswith(("ties", "dare"))


def parse_merge(values: Mapping[str, Any]) -> MergeRequest:
    """Build a request from loose values such as a command line's.

    Raises:
        InvalidRequest: naming the first field that is wrong, or that the method has no use for.
    """
    try:
        request = MergeRequest.model_validate(dict(values))
    except ValidationError as error:
        field = str(error.errors(include_url=False)[0]["loc"][0])
        given = reprlib.repr(values.get(field))
        message = {
            "name": "The merged adapter has no name, or one of more than 80 characters.",
            "portions": "These are no adapters that can be merged.",
        }.get(field, f"{field.replace('_', ' ').capitalize()} is {given}, which does not work.")
        raise InvalidRequest(message, _EXPECTED.get(field, ""), field) from None
    method = request.method
    if request.rank is not None and not method.endswith("svd"):
        raise InvalidRequest(f"The rank of what {method} makes follows from the adapters.", "Leave it out.", "rank")
    if request.density is not None and not drops_numbers(method):
        raise InvalidRequest(f"Nothing is dropped by {method}, so it has no density.", "Leave it out.", "density")
    if request.density is None and drops_numbers(method):
        return request.model_copy(update={"density": DENSITY})
    return request
