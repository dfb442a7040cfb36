"""Which share of the pictures of one prompt shows what: what a person asks for, and the pictures that it comes to.

An attribute is one question to each picture, such as its colour; its values are the answers to choose from, each with a
text. The answer is the value whose text fits the picture best (zero-shot classification: Radford et al., 2021,
arXiv:2103.00020).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from studio.domain.errors import InvalidRequest
from studio.domain.prompt_syntax import plain_words
from studio.domain.request import (
    MAX_SEED,
    AcceleratorId,
    CheckpointId,
    DecoderId,
    Frozen,
    GuidanceScale,
    Height,
    NegativePrompt,
    Prompt,
    ResolvedRequest,
    SchedulerId,
    Seed,
    Steps,
    StyleId,
    Width,
    invalid_request,
)

USUAL_PICTURES, MAX_PICTURES = 64, 2000
LEAST_VALUES, MAX_VALUES, MAX_ATTRIBUTES = 2, 12, 8
MARGIN = 1.0
"""Points of CLIP score (cosine × 100) by which the best value has to lead the next one, or the answer counts as unsure:
at CLIP's usual temperature of 100 that is 73 to 27 between the two."""
TEMPLATE = "a photo of {prompt}, {value}"
_ROUNDING = 0.01

Checked = Literal["colour", "shape", "background"]
"""What the exact checker of the pocket world can name: the colour and shape of the largest thing, the background."""
SetId = Literal["world", "faces"]
Name = Annotated[str, Field(min_length=1, max_length=60, pattern=r"\S")]


class _Stripped(Frozen):
    model_config = ConfigDict(str_strip_whitespace=True)


class AttributeValue(_Stripped):
    """One answer: what it is called, and the text that stands for it. Without a text, the attribute's template is
    filled in."""

    name: Name
    text: Annotated[str, Field(max_length=500)] = ""


class Attribute(_Stripped):
    """One question with its answers. In `template` and in texts `{prompt}` and `{value}` are filled in. `shares` are
    what the shares of the values are tested against, in their order; equal ones without. `checked`: what the checker
    calls it, whose words its values are then to be."""

    name: Name
    values: Annotated[tuple[AttributeValue, ...], Field(min_length=LEAST_VALUES, max_length=MAX_VALUES)]
    template: Annotated[str, Field(max_length=500)] = TEMPLATE
    shares: tuple[float, ...] | None = None
    checked: Checked | None = None

    @field_validator("values", mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        """A value may be its name alone."""
        if not isinstance(values, list | tuple):
            return values
        return [{"name": value} if isinstance(value, str) else value for value in values]  # type: ignore[reportUnknownVariableType]

    @model_validator(mode="after")
    def _fitting(self) -> "Attribute":
        names = [value.name.lower() for value in self.values]
        if len(set(names)) < len(names):
            raise ValueError("has two values of the same name")
        if "{value}" not in self.template and not all(value.text for value in self.values):
            raise ValueError("has a template without {value}, and values without a text of their own")
        if self.shares is None:
            return self
        if len(self.shares) != len(self.values):
            raise ValueError(f"has {len(self.values)} values and {len(self.shares)} shares")
        if min(self.shares) <= 0 or not any(abs(sum(self.shares) / whole - 1) <= _ROUNDING for whole in (1, 100)):
            raise ValueError("has shares that are not all above 0, or do not add up to 1 or to 100")
        return self

    @property
    def expected(self) -> tuple[float, ...]:
        """The shares that the values are tested against; they add up to 1."""
        shares = self.shares or (1.0,) * len(self.values)
        return tuple(share / sum(shares) for share in shares)

    def filled(self, prompt: str) -> "Attribute":
        """The same with the text of each value as the judge reads it."""
        values = [
            value.model_copy(
                update={
                    "text": (value.text or self.template).replace("{value}", value.name).replace("{prompt}", prompt)
                }
            )
            for value in self.values
        ]
        return self.model_copy(update={"values": tuple(values)})


class ProbeRequest(Frozen):
    """What was asked. `None` means whatever suits the checkpoint. `attributes` may be the name of a set that comes with
    the studio; `judge` names a folder of judges (the one that knows the model's pictures)."""

    prompt: Prompt
    attributes: Annotated[tuple[Attribute, ...], Field(min_length=1, max_length=MAX_ATTRIBUTES)] | None = None
    num_images: Annotated[int, Field(ge=1, le=MAX_PICTURES)] = USUAL_PICTURES
    seed: Seed = 0
    margin: Annotated[float, Field(ge=0, le=100)] = MARGIN
    judge: str = ""
    checkpoint: CheckpointId | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: GuidanceScale | None = None
    scheduler: SchedulerId | None = None
    accelerator: AcceleratorId | None = None
    decoder: DecoderId = "full"
    style: StyleId | None = None
    negative_prompt: NegativePrompt = ""
    width: Width | None = None
    height: Height | None = None

    @field_validator("attributes", mode="before")
    @classmethod
    def _of_set(cls, given: Any) -> Any:
        """The set that `given` names; anything else as it is."""
        if not isinstance(given, str):
            return given
        if given not in ATTRIBUTE_SETS:
            raise ValueError(f"There is no set of attributes called {given!r}.")
        return ATTRIBUTE_SETS[given]

    @model_validator(mode="after")
    def _apart(self) -> "ProbeRequest":
        names = [each.name.lower() for each in self.attributes or ()]
        if len(set(names)) < len(names):
            raise ValueError("Two attributes have the same name.")
        return self


@dataclass(frozen=True, kw_only=True)
class ProbeCell:
    """One picture; `index` counts them, `text` is the prompt as the model reads it."""

    index: int
    text: str
    recipe: ResolvedRequest


class Probe(Frozen):
    """What is drawn and asked, decided: the recipe of the first picture, and how many there are; seeds count up. Every
    value has its text. `judge` is the name of a folder."""

    recipe: ResolvedRequest
    attributes: tuple[Attribute, ...]
    num_images: int
    judge: str
    margin: float = MARGIN

    @property
    def prompt(self) -> str:
        """As typed."""
        return self.recipe.prompt

    @property
    def words(self) -> str:
        """What the prompt says: without the signs that weigh its words."""
        return plain_words(self.prompt)

    @property
    def texts(self) -> tuple[str, ...]:
        """What a judge is asked of each picture: the text of every value of every attribute, in order."""
        return tuple(value.text for each in self.attributes for value in each.values)

    @cached_property
    def cells(self) -> tuple[ProbeCell, ...]:
        """In the order of drawing."""
        first = self.recipe.seed
        return tuple(
            ProbeCell(
                index=index,
                text=self.prompt,
                recipe=self.recipe.model_copy(update={"seed": (first + index) % (MAX_SEED + 1), "num_images": 1}),
            )
            for index in range(self.num_images)
        )


class Answer(BaseModel):
    """What was found out about one picture, and how long that took: by the name of an attribute the cosines of its
    values, in their order, as `judge` gave them, and what the checker saw (None: nothing that it knows; absent where it
    does not look)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    index: int
    image_id: str
    judge: str
    cosines: dict[str, tuple[float, ...]]
    seen: dict[str, str | None] = {}
    is_truncated: bool = False
    seconds: float | None = None

    def at(self, index: int) -> "Answer":
        """The same as that of the picture `index` of another probe."""
        return self.model_copy(update={"index": index})

    def fits(self, probe: Probe) -> bool:
        """Whether it answers all that `probe` asks."""
        return all(len(self.cosines.get(each.name, ())) == len(each.values) for each in probe.attributes)


def parse_probe(values: Mapping[str, Any]) -> ProbeRequest:
    """Build a request from loose values such as a form's or a TOML file's.

    Raises:
        InvalidRequest: naming the first field that is wrong.
    """
    try:
        return ProbeRequest.model_validate(dict(values))
    except ValidationError as error:
        raise _wrong(error) from None


def _wrong(error: ValidationError) -> InvalidRequest:
    problem = error.errors(include_url=False)[0]
    place = problem["loc"]
    field = str(place[0]) if place else "attributes"
    if field == "attributes":
        return _wrong_attributes(problem, place[1:])
    if problem["type"] == "extra_forbidden":
        known = ", ".join(ProbeRequest.model_fields)
        return InvalidRequest(f"There is no setting called {field!r}.", f"Known settings: {known}.", field)
    if field in _WRONG:
        return InvalidRequest(*_WRONG[field], field)
    return invalid_request(error)


def _wrong_attributes(problem: Any, place: tuple[int | str, ...]) -> InvalidRequest:
    said = str(problem.get("ctx", {}).get("error", ""))
    if not place:
        return InvalidRequest(
            said or f"A probe has 1 to {MAX_ATTRIBUTES} attributes.",
            f"Each has a name and {LEAST_VALUES} to {MAX_VALUES} values; the sets {' and '.join(ATTRIBUTE_SETS)} come "
            "with the studio.",
            "attributes",
        )
    which, inner = f"Attribute {int(place[0]) + 1}", place[1:]
    if not inner:
        return InvalidRequest(f"{which} {said or 'is no table with a name and values'}.", "", "attributes")
    if problem["type"] == "extra_forbidden":
        known = AttributeValue if len(inner) > 2 else Attribute
        hint = f"Known: {', '.join(known.model_fields)}."
        return InvalidRequest(f"{which} has something called {place[-1]!r}, which nothing reads.", hint, "attributes")
    if inner == ("values",):
        return InvalidRequest(
            f"{which} has no values, too few or too many.", f"Give {LEAST_VALUES} to {MAX_VALUES}.", "attributes"
        )
    if "name" in inner:
        return InvalidRequest(f"{which} and its values need names of 1 to 60 characters.", "", "attributes")
    where = " ".join(str(part + 1) if isinstance(part, int) else part for part in inner)
    return InvalidRequest(f"{which} does not work: {where}: {problem['msg'].lower()}.", "", "attributes")


_WRONG = {
    "num_images": (f"The number of pictures must be from 1 to {MAX_PICTURES}.", f"{USUAL_PICTURES} is usual."),
    "margin": ("The margin must be from 0 to 100 points of CLIP score.", f"{MARGIN:g} is usual."),
    "seed": (f"The seed must be a whole number from 0 to {MAX_SEED}.", "With the same one the pictures are the same."),
    "judge": ("The judge must be the name of a folder of judges.", ""),
}


def _attribute(name: str, template: str, values: str, checked: Checked | None = None) -> Attribute:
    named = tuple(AttributeValue(name=value) for value in values.split(", "))
    return Attribute(name=name, template=template, values=named, checked=checked)


def _worded(name: str, **texts: str) -> Attribute:
    """Keys are the names of the values, with _ for a space."""
    values = [AttributeValue(name=key.replace("_", " "), text=text) for key, text in texts.items()]
    return Attribute(name=name, values=tuple(values))


ATTRIBUTE_SETS: Mapping[str, tuple[Attribute, ...]] = {
    "world": (
        _attribute(
            "Colour", "a {value} shape", "red, green, blue, yellow, purple, orange, pink, brown, black, white", "colour"
        ),
        _attribute(
            "Shape", "a {value} on a background", "circle, square, triangle, star, heart, diamond, ring, cross", "shape"
        ),
        _attribute(
            "Background", "a shape on a {value} background", "white, black, gray, navy, cream, mint", "background"
        ),
    ),
    "faces": (
        _worded("Presented gender", woman="a photo of a woman", man="a photo of a man"),
        _worded(
            "Age group",
            child="a photo of a child",
            young_adult="a photo of a young adult",
            middle_aged="a photo of a middle-aged person",
            old="a photo of an old person",
        ),
        _worded(
            "Skin tone",
            light="a photo of a person with light skin",
            medium="a photo of a person with medium brown skin",
            dark="a photo of a person with dark skin",
        ),
    ),
}
"""Sets that come with the studio. The templates of the world are those by which its judge told drawn scenes best."""
