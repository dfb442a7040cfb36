"""What a person asks for (`GenerationRequest`) and the fully decided recipe of it (`ResolvedRequest`).

Bounds, titles and help texts live on the types below; sliders, command-line help and documentation are built from them
(read them off `ResolvedRequest.model_fields`, where nothing is optional).
"""

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from studio.domain.beginning import (
    NO_HIRES,
    NO_PICTURE,
    USUAL_HIRES_STRENGTH,
    USUAL_MASK_BLUR,
    USUAL_STRENGTH,
    BorderDown,
    BorderLeft,
    BorderRight,
    BorderUp,
    HiresScale,
    HiresSteps,
    HiresStrength,
    HiresUpscaler,
    InitImage,
    MaskBlur,
    MaskImage,
    ResizeMode,
    Strength,
    steps_run,
)
from studio.domain.errors import InvalidRequest
from studio.domain.steering import (
    NO_CONTROL,
    USUAL_CONTROL_SCALE,
    ControlId,
    ControlImage,
    ControlScale,
    ControlSource,
)

RANDOM_SEED = -1
NO_ACCELERATOR = "none"
MAX_SEED = 2**32 - 1

Prompt = Annotated[
    str,
    Field(min_length=1, max_length=10_000, pattern=r"\S", title="Prompt", description="What the picture should show."),
]
NegativePrompt = Annotated[
    str,
    Field(
        max_length=10_000,
        title="What to keep out — negative prompt",
        description="Has an effect only while guidance is on (above 1).",
    ),
]
CheckpointId = Annotated[str, Field(title="Model", description="Which weights draw the picture.")]
TypedPrompt = Annotated[
    str,
    Field(
        max_length=10_000,
        title="Prompt as typed",
        description="What the prompt was before the seed decided what it left open; empty if it left nothing open.",
    ),
]
OriginalPrompt = Annotated[
    str,
    Field(
        max_length=10_000,
        title="Your own words",
        description="What was typed before the prompt was enhanced; kept with the picture. Empty if it was not.",
    ),
]
StyleId = Annotated[str, Field(title="Style", description="Words added around the prompt; both texts are kept.")]
Width = Annotated[int, Field(ge=64, le=2048, multiple_of=8, title="Width", description="In pixels, a multiple of 8.")]
Height = Annotated[int, Field(ge=64, le=2048, multiple_of=8, title="Height", description="In pixels, a multiple of 8.")]
Steps = Annotated[
    int,
    Field(
        ge=1,
        le=150,
        title="How long to refine — steps",
        description="More steps take longer; past the model's default they change little.",
    ),
]
GuidanceScale = Annotated[
    float,
    Field(
        ge=0.0,
        le=30.0,
        title="How closely to follow the prompt — guidance scale",
        description="1 or less switches guidance off: twice as fast, looser, and the negative prompt has no effect.",
        json_schema_extra={"step": 0.5},
    ),
]
SchedulerId = Annotated[
    str,
    Field(title="How noise becomes a picture — sampler", description="DPM++ 2M Karras is a good default."),
]
AcceleratorId = Annotated[
    str,
    Field(
        title="Draw in few steps — accelerator",
        description="An adapter that was distilled to need 2 to 8 steps and no guidance. None: the model as it is.",
    ),
]
DecoderName = Literal["full", "half", "tiny"]
DecoderId = Annotated[
    DecoderName,
    Field(
        title="How latents become pixels — decoder",
        description="Full is the model's own. Half is that in half precision: half of its time or less, and hardly a "
        "pixel differs by more than 1 in 255. Tiny (TAESD) takes a third of it or less and draws rougher edges.",
    ),
]
ClipSkip = Annotated[
    int,
    Field(
        ge=1,
        le=12,
        title="How literally words are read — clip skip",
        description="Which layer of the text encoder is read, counted from the one that the model was trained with. "
        "Many models for anime want 2; for others 1 is best.",
    ),
]
Seed = Annotated[
    int,
    Field(
        ge=0,
        le=MAX_SEED,
        title="Seed",
        description="The same seed and settings give the same picture. -1 picks one at random.",
    ),
]
NumImages = Annotated[
    int,
    Field(
        ge=1,
        le=64,
        title="Number of pictures",
        description="Each has its own seed, counted up from the first.",
    ),
]


class Frozen(BaseModel):
    """A value of the domain: it does not change, takes nothing that it does not know, and only finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GenerationRequest(Frozen):
    """What was asked. `None` means "whatever suits the checkpoint"; a seed of -1 means "any"."""

    prompt: Prompt
    negative_prompt: NegativePrompt = ""
    checkpoint: CheckpointId | None = None
    style: StyleId | None = None
    width: Width | None = None
    height: Height | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: GuidanceScale | None = None
    scheduler: SchedulerId | None = None
    accelerator: AcceleratorId | None = None
    decoder: DecoderId = "full"
    seed: Annotated[int, Field(ge=RANDOM_SEED, le=MAX_SEED)] = RANDOM_SEED
    num_images: NumImages = 1
    clip_skip: ClipSkip = 1
    typed_prompt: TypedPrompt = ""
    original_prompt: OriginalPrompt = ""
    init_image: InitImage = NO_PICTURE
    strength: Strength = USUAL_STRENGTH
    mask: MaskImage = NO_PICTURE
    mask_blur: MaskBlur = USUAL_MASK_BLUR
    resize_mode: ResizeMode = "crop"
    outpaint_left: BorderLeft = 0
    outpaint_right: BorderRight = 0
    outpaint_up: BorderUp = 0
    outpaint_down: BorderDown = 0
    hires_scale: HiresScale = NO_HIRES
    hires_strength: HiresStrength = USUAL_HIRES_STRENGTH
    hires_steps: HiresSteps = 0
    hires_upscaler: HiresUpscaler = "lanczos"
    control: ControlId = NO_CONTROL
    control_image: ControlImage = ""
    control_source: ControlSource = "picture"
    control_scale: ControlScale = USUAL_CONTROL_SCALE


class ResolvedRequest(Frozen):
    """Everything decided: the recipe. The prompt is as typed; `Catalogue.styled` says what the model reads."""

    prompt: Prompt
    negative_prompt: NegativePrompt
    checkpoint: CheckpointId
    style: StyleId
    width: Width
    height: Height
    num_inference_steps: Steps
    guidance_scale: GuidanceScale
    scheduler: SchedulerId
    accelerator: AcceleratorId = NO_ACCELERATOR
    """Recipes that are older than accelerators say nothing of one, nor of a decoder."""
    decoder: DecoderId = "full"
    seed: Seed
    num_images: NumImages
    clip_skip: ClipSkip = 1
    typed_prompt: TypedPrompt = ""
    original_prompt: OriginalPrompt = ""
    init_image: InitImage = NO_PICTURE
    """As large as `width` × `height`, as is the mask."""
    strength: Strength = USUAL_STRENGTH
    mask: MaskImage = NO_PICTURE
    mask_blur: MaskBlur = USUAL_MASK_BLUR
    hires_scale: HiresScale = NO_HIRES
    hires_strength: HiresStrength = USUAL_HIRES_STRENGTH
    hires_steps: HiresSteps = 0
    hires_upscaler: HiresUpscaler = "lanczos"
    control: ControlId = NO_CONTROL
    control_image: ControlImage = ""
    """As large as `width` × `height`, and a map where there is one."""
    control_source: ControlSource = "picture"
    control_scale: ControlScale = USUAL_CONTROL_SCALE

    @property
    def uses_guidance(self) -> bool:
        """Whether classifier-free guidance runs: diffusers' convention, off at 1 or below."""
        return self.guidance_scale > 1.0

    @property
    def evaluations(self) -> int:
        """How often the UNet is asked for one picture: twice a step while guidance runs."""
        return (self.steps_run + self.hires_steps_run) * (2 if self.uses_guidance else 1)

    @property
    def steps_run(self) -> int:
        """How many of its steps are drawn: all of them, unless it begins from a picture."""
        return steps_run(self.num_inference_steps, self.strength) if self.init_image else self.num_inference_steps

    @property
    def has_hires(self) -> bool:
        """Whether a second pass makes it larger."""
        return self.hires_scale > NO_HIRES

    @property
    def hires_steps_run(self) -> int:
        """How many steps of the second pass are drawn; 0 where there is none."""
        return steps_run(self.hires_steps, self.hires_strength) if self.has_hires else 0

    @property
    def final_size(self) -> tuple[int, int]:
        """Width and height of the finished picture in pixels."""
        width, height = (round(side * self.hires_scale / 8) * 8 for side in (self.width, self.height))
        return width, height

    def single(self, index: int) -> "ResolvedRequest":
        """The recipe of picture `index` alone: one image, its own seed (counted up, wrapping at 2³²)."""
        return self.model_copy(update={"seed": (self.seed + index) % (MAX_SEED + 1), "num_images": 1})

    @property
    def prompt_to_type(self) -> str:
        """The prompt that, with this seed, gives this recipe: with its choices, where it left something open."""
        return self.typed_prompt or self.prompt

    def as_request(self) -> GenerationRequest:
        """The request that resolves to exactly this recipe."""
        return GenerationRequest(**self.model_dump())


def parse_request(values: Mapping[str, Any]) -> GenerationRequest:
    """Build a request from loose values such as a form's or a command line's.

    Raises:
        InvalidRequest: naming the first field that is wrong, what it was and what it may be.
    """
    try:
        return GenerationRequest.model_validate(dict(values))
    except ValidationError as error:
        raise invalid_request(error) from None


def invalid_request(error: ValidationError) -> InvalidRequest:
    """Say the first problem of a pydantic error in one sentence a person understands."""
    problem = error.errors(include_url=False)[0]
    field = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "extra_forbidden":
        known = ", ".join(GenerationRequest.model_fields)
        return InvalidRequest(f"There is no setting called {field!r}.", f"Known settings: {known}.", field)
    if field == "prompt":
        return _bad_prompt(problem)
    if field not in home_of(field).model_fields:
        return InvalidRequest(f"{label(field)} does not work: {problem['msg'].lower()}.", "", field)
    return InvalidRequest(
        f"{label(field)} is {reprlib.repr(problem['input'])}; it must be {_expected(problem, field)}.", "", field
    )


def label(field: str) -> str:
    """The short name of a field as people say it: the mechanism in its title, capitalised."""
    return short_name(home_of(field), field)


def short_name(model: type[BaseModel], field: str) -> str:
    """What `label` is for a request, of a field of any `model`."""
    info = model.model_fields.get(field)
    title = (info.title if info else None) or field.replace("_", " ")
    short = title.rsplit("— ", 1)[-1]
    return short[:1].upper() + short[1:]


def bounds(field: str) -> tuple[float | None, float | None, float | None]:
    """Lowest value, highest value and step of a numeric field (None where it has none)."""
    schema = home_of(field).model_json_schema()["properties"][field]
    return schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf", schema.get("step"))


def home_of(field: str) -> type[BaseModel]:
    """Where a field's texts and bounds are read: what only prepares a picture is no part of its recipe."""
    return GenerationRequest if field not in ResolvedRequest.model_fields else ResolvedRequest


def _bad_prompt(problem: ErrorDetails) -> InvalidRequest:
    if problem["type"] == "string_too_long":
        return InvalidRequest(
            f"The prompt has {len(problem['input']):,} characters; at most 10,000 fit.", "Shorten it.", "prompt"
        )
    return InvalidRequest("There is no prompt.", "Write what the picture should show.", "prompt")


def _expected(problem: ErrorDetails, field: str) -> str:
    low, high, step = bounds(field)
    if problem["type"] == "literal_error":
        return " or ".join(get_args(home_of(field).model_fields[field].annotation))
    if problem["type"] == "string_pattern_mismatch":
        return "the name of a picture that is kept here"
    if low is None or high is None:
        return "at most 10,000 characters" if problem["type"] == "string_too_long" else "a text"
    low = RANDOM_SEED if field == "seed" else low
    kind = "a number" if home_of(field).model_fields[field].annotation is float else "a whole number"
    multiple = f" that is a multiple of {step:g}" if step == 8 else ""
    return f"{kind} from {low if low % 1 else int(low)} to {high:.0f}{multiple}"
