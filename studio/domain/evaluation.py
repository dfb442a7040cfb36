"""Which of several systems draws better: what a person asks for, and the pictures that it comes to.

A system is one way of drawing: a model with adapters, a number of steps, a sampler, guidance. All draw the same prompts
with the same seeds, so that they are compared picture by picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from studio.domain.errors import InvalidRequest
from studio.domain.prompt_syntax import plain_words
from studio.domain.request import (
    MAX_SEED,
    AcceleratorId,
    CheckpointId,
    ClipSkip,
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
from studio.domain.sweep import MAX_AXES, Axis
from studio.domain.tags import AdapterUse

MAX_SYSTEMS, MAX_PROMPTS, MAX_SEEDS, MAX_PICTURES = 12, 1000, 64, 20_000
MAX_SWEPT = 100
"""Systems of a sweep."""
PROMPTS_A_ROUND = 8
"""Prompts that one system draws before the next one does: models are swapped seldom, and all can soon be compared."""
CLIP_MARGIN, RIGHT_MARGIN = 0.5, 2.0
"""What counts as no loss, in points of CLIP score (cosine × 100) and in percentage points of pictures drawn right."""

PresetId = Literal["smoke", "quick", "standard", "thorough"]
PRESETS: Mapping[PresetId, tuple[int, int]] = {
    "smoke": (8, 1), "quick": (34, 2), "standard": (128, 2), "thorough": (200, 4),
}  # fmt: skip
"""Prompts, and pictures of each."""


class SystemRequest(Frozen):
    """One way of drawing as it is asked for. `None` means whatever suits the checkpoint. `trigger` is put before every
    prompt and is not what the picture is judged by."""

    name: Annotated[str, Field(max_length=80)] = ""
    checkpoint: CheckpointId | None = None
    adapters: Annotated[tuple[AdapterUse, ...], Field(max_length=8)] = ()
    trigger: Annotated[str, Field(max_length=200)] = ""
    num_inference_steps: Steps | None = None
    guidance_scale: GuidanceScale | None = None
    scheduler: SchedulerId | None = None
    accelerator: AcceleratorId | None = None
    decoder: DecoderId = "full"
    clip_skip: ClipSkip = 1
    style: StyleId | None = None
    negative_prompt: NegativePrompt = ""
    width: Width | None = None
    height: Height | None = None
    at: tuple[int, ...] = ()
    """Where it stands in a sweep that is told system by system."""


class EvaluationPrompt(Frozen):
    """A text that pictures are to show, and what kind of text it is."""

    text: Prompt
    group: str = ""


class EvaluationRequest(Frozen):
    """What was asked. `prompts` of one's own go before those of a set; `baseline` names the system that the others are
    compared with (the first one), `judge` a folder of judges (the one that knows the models' pictures), and
    `second_judge` another one that is asked, too (none): whether both say the same tells more than either. With `axes`
    the first system is swept: it is drawn with every combination of their values, and others are left out, unless all
    say where they stand."""

    name: Annotated[str, Field(max_length=80)] = ""
    systems: Annotated[tuple[SystemRequest, ...], Field(min_length=1, max_length=MAX_SWEPT)]
    axes: Annotated[tuple[Axis, ...], Field(max_length=MAX_AXES)] = ()
    has_control: bool = True
    """Whether a system with adapters is also drawn without them."""
    baseline: str = ""
    prompt_set: str | None = None
    num_prompts: Annotated[int, Field(ge=1, le=MAX_PROMPTS)] = PRESETS["quick"][0]
    prompts: Annotated[tuple[Prompt | EvaluationPrompt, ...], Field(min_length=1, max_length=MAX_PROMPTS)] | None = None
    seed: Seed = 0
    num_images: Annotated[int, Field(ge=1, le=MAX_SEEDS)] = PRESETS["quick"][1]
    """Of each prompt."""
    clip_margin: Annotated[float, Field(ge=0, le=100)] = CLIP_MARGIN
    right_margin: Annotated[float, Field(ge=0, le=100)] = RIGHT_MARGIN
    judge: str = ""
    second_judge: str = ""


class System(Frozen):
    """One way of drawing, decided: a recipe whose prompt and seed stand for all. `is_control`: nobody asked for it, but
    for the same with an adapter. `at` is the place of its value on each axis of a sweep."""

    name: str
    recipe: ResolvedRequest
    adapters: tuple[AdapterUse, ...] = ()
    trigger: str = ""
    is_control: bool = False
    at: tuple[int, ...] = ()

    def prompt(self, text: str) -> str:
        """What is asked of the model to show `text`: with the words that call the adapters before, and their tags
        behind."""
        return " ".join(part for part in (self.trigger, text, *(use.tag for use in self.adapters)) if part)

    def recipe_of(self, text: str, seed: int) -> ResolvedRequest:
        """The recipe of one picture."""
        return self.recipe.model_copy(update={"prompt": self.prompt(text), "seed": seed, "num_images": 1})


@dataclass(frozen=True, kw_only=True)
class EvaluationCell:
    """One picture. `index` counts all of them in the order of drawing; `place` is that of its prompt, `image` counts
    the pictures of that prompt."""

    index: int
    system: System
    place: int
    image: int
    text: str
    recipe: ResolvedRequest


class Evaluation(Frozen):
    """The systems, and what each draws: every prompt, `num_images` times. `judge` is the name of a folder, "" where
    nobody gives CLIP scores, and `second_judge` that of another one."""

    name: str
    systems: tuple[System, ...]
    baseline: str
    prompts: tuple[EvaluationPrompt, ...]
    seed: int
    num_images: int
    clip_margin: float = CLIP_MARGIN
    right_margin: float = RIGHT_MARGIN
    judge: str = ""
    second_judge: str = ""
    axes: tuple[Axis, ...] = ()

    @property
    def others(self) -> tuple[System, ...]:
        """All but the baseline."""
        return tuple(system for system in self.systems if system.name != self.baseline)

    def seed_of(self, place: int, image: int) -> int:
        """Every picture of every prompt has its own, whatever their number: more of either leave the others' as they
        were."""
        return (self.seed + place * MAX_SEEDS + image) % (MAX_SEED + 1)

    @cached_property
    def cells(self) -> tuple[EvaluationCell, ...]:
        """In the order of drawing: some prompts by one system, then the same by the next."""
        places = [
            (system, place, image)
            for first in range(0, len(self.prompts), PROMPTS_A_ROUND)
            for system in self.systems
            for place in range(first, min(first + PROMPTS_A_ROUND, len(self.prompts)))
            for image in range(self.num_images)
        ]
        return tuple(
            EvaluationCell(
                index=index,
                system=system,
                place=place,
                image=image,
                text=plain_words(self.prompts[place].text),
                recipe=system.recipe_of(self.prompts[place].text, self.seed_of(place, image)),
            )
            for index, (system, place, image) in enumerate(places)
        )


def parse_evaluation(values: Mapping[str, Any]) -> EvaluationRequest:
    """Build a request from loose values such as a form's or a manifest's.

    Raises:
        InvalidRequest: naming the first field that is wrong.
    """
    try:
        return EvaluationRequest.model_validate(dict(values))
    except ValidationError as error:
        raise _wrong(error) from None


def _wrong(error: ValidationError) -> InvalidRequest:
    problem = error.errors(include_url=False)[0]
    place = [part for part in problem["loc"] if part != "AdapterUse"]
    field = str(place[0]) if place else ""
    if problem["type"] == "extra_forbidden":
        known = SystemRequest if field == "systems" and len(place) > 2 else EvaluationRequest
        message = f"There is no setting called {place[-1]!r}."
        return InvalidRequest(message, f"Known settings: {', '.join(known.model_fields)}.", field)
    if field == "systems" and len(place) > 2:
        name = str(place[2])
        if name in ("adapters", "name", "trigger"):
            said = f"What system {int(place[1]) + 1} has as its {name} does not work: {problem['msg'].lower()}."
            return InvalidRequest(said, "An adapter has a name and a scale from -4 to 4.", "systems")
        inner = {**problem, "loc": tuple(place[2:])}
        told = invalid_request(ValidationError.from_exception_data("SystemRequest", [_line(inner)]))
        return InvalidRequest(f"System {int(place[1]) + 1}: {told.message}", told.hint, "systems")
    if field in _WRONG:
        return InvalidRequest(*_WRONG[field], field)
    return InvalidRequest(f"{field.replace('_', ' ')} does not work: {problem['msg'].lower()}.", "", field)


def _line(problem: Mapping[str, Any]) -> Any:
    return {key: problem[key] for key in ("type", "loc", "input", "ctx") if key in problem}


_WRONG = {
    "systems": ("There is no system to evaluate, or there are too many.", f"Give 1 to {MAX_SYSTEMS}."),
    "axes": (
        "An axis does not work.",
        "Each has a field such as num_inference_steps, and 1 to 24 values; there are at most three.",
    ),
    "prompts": ("There is no prompt, or one is empty.", f"Give 1 to {MAX_PROMPTS}."),
    "num_prompts": (f"The number of prompts must be from 1 to {MAX_PROMPTS}.", ""),
    "num_images": (f"The number of pictures of each prompt must be from 1 to {MAX_SEEDS}.", ""),
    "clip_margin": ("The margin of CLIP scores must be from 0 to 100 points.", f"{CLIP_MARGIN:g} is usual."),
    "right_margin": ("The margin of pictures drawn right must be from 0 to 100 points.", f"{RIGHT_MARGIN:g} is usual."),
    "seed": ("The seed must be a whole number from 0 to 4294967295.", "With the same one the pictures are the same."),
}
