"""Training a LoRA: what a person asks for, and the fully decided run that comes of it."""

import math
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.distillation import Reach
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.request import Frozen, short_name
from studio.domain.training_presets import PresetId, SubjectId, usual_prior, usual_training

OptimizerId = Literal["adamw", "adamw8bit", "prodigy"]
ScheduleId = Literal["constant", "cosine", "linear", "restarts"]
CropId = Literal["centre", "buckets"]

SCHEDULE_TITLES: Mapping[ScheduleId, str] = {
    "constant": "Constant",
    "cosine": "Cosine: falls to nothing",
    "linear": "Linear: falls to nothing",
    "restarts": "Cosine, three times",
}
OPTIMIZER_TITLES: Mapping[OptimizerId, str] = {
    "adamw": "AdamW",
    "adamw8bit": "AdamW with 8-bit state",
    "prodigy": "Prodigy: finds its own rate",
}
OPTIMIZER_PACKAGES: Mapping[OptimizerId, str] = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}
"""What must be installed for it."""
LEAST_FOR_VALIDATION = 20
"""Pictures from which on some are held out: of fewer, each is worth more learnt from."""
SHOWN_PROMPTS = 4
"""Prompts that samples are drawn of."""

Name = Annotated[
    str,
    Field(min_length=1, max_length=80, pattern=r"\S", title="Name", description="What the adapter is called in lists."),
]
Trigger = Annotated[
    str,
    Field(
        max_length=100,
        title="Trigger word",
        description="A word that the model does not know yet, such as sks: put before captions that lack it, and "
        "later in the prompt to call what was learnt. Empty for a style that always applies.",
    ),
]
NumSteps = Annotated[
    int,
    Field(
        ge=10,
        le=1_000_000,
        title="How long to train — steps",
        description="Each is one change of the adapter. Stopped earlier, the best that there is is kept.",
    ),
]
BatchSize = Annotated[
    int, Field(ge=1, le=256, title="Pictures at once — batch size", description="More learn steadier and take memory.")
]
Accumulation = Annotated[
    int,
    Field(
        ge=1,
        le=256,
        title="Batches a step — gradient accumulation",
        description="As steady as so many times larger a batch, in the memory of one.",
    ),
]
Rank = Annotated[int, Field(ge=1, le=256, title="How much it can learn — rank", description="Its file grows with it.")]
Alpha = Annotated[
    float,
    Field(
        gt=0,
        le=1024,
        title="How strongly it acts — alpha",
        description="Changes are multiplied by alpha / rank: half the alpha is half the learning rate, nearly.",
    ),
]
Dropout = Annotated[
    float,
    Field(
        ge=0,
        lt=1,
        title="Part of the adapter left out at random — dropout",
        description="Against learning by heart, for few pictures and many steps.",
    ),
]
Decompose = Annotated[
    bool,
    Field(
        title="Direction and strength apart — DoRA",
        description="Learns more with a small rank, nearer to a training of the whole model. A step takes a third "
        "longer, and such an adapter cannot be merged.",
    ),
]
Gradual = Annotated[
    bool,
    Field(
        title="A scale that fades it in — gradual",
        description="Every other step learns at part of the strength to do part of it, so that at half the scale some "
        "of it shows, and not nothing. Such a step takes a quarter longer.",
    ),
]
LearningRate = Annotated[
    float,
    Field(gt=0, le=1.0, title="How fast it learns — learning rate", description="Too fast, and pictures fall apart."),
]
TextLearningRate = Annotated[
    float,
    Field(
        ge=0,
        le=1.0,
        title="How fast the words learn — text encoder's learning rate",
        description="0 leaves the text encoder as it is: usual for SDXL. Others take a tenth to a half of the rate.",
    ),
]
Warmup = Annotated[
    float,
    Field(ge=0, le=0.5, title="Share of steps to get up to speed — warm-up", description="Begins gently, for so long."),
]
SnrGamma = Annotated[
    float,
    Field(
        ge=0,
        le=100,
        title="Even weight of noise levels — min-SNR gamma",
        description="Learns faster: pictures with little noise weigh less. 5 is usual, 0 is off.",
    ),
]
NoiseOffset = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        title="Darker darks, lighter lights — noise offset",
        description="Lets it learn the brightness of whole pictures; 0.05 does, 0 is off.",
    ),
]
CaptionDropout = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        title="Share of captions left out",
        description="Keeps guidance working, and lets a style apply without words.",
    ),
]
Masked = Annotated[
    bool,
    Field(
        title="Learn only what masks show",
        description="White is learnt: of name.mask.png beside a picture or, without one, of its own transparency. A "
        "picture with neither is learnt whole.",
    ),
]
MaskFloor = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        title="How much the rest counts — mask floor",
        description="Of what masks show black: 0 is not learnt at all, 1 like the rest. A little keeps surroundings "
        "plausible.",
    ),
]
NumPrior = Annotated[
    int,
    Field(
        ge=0,
        le=10_000,
        title="Pictures of what it knew — prior preservation",
        description="The model draws so many itself before, and goes on learning them: so it forgets nothing. A step "
        "takes twice as long. 0 is off.",
    ),
]
PriorWeight = Annotated[
    float,
    Field(ge=0, le=10, title="How much those count — prior weight", description="1 counts them like the new ones."),
]
ValidationShare = Annotated[
    float,
    Field(
        ge=0,
        le=0.5,
        title="Share of pictures held out",
        description="Their loss tells when it begins to learn by heart. Only from 20 pictures on.",
    ),
]
Patience = Annotated[
    int,
    Field(
        ge=0,
        le=1000,
        title="Stop after so many looks that are no better",
        description="By the loss on held-out pictures. 0 goes on to the end.",
    ),
]
LookEvery = Annotated[
    int,
    Field(
        ge=5, le=100_000, title="Look every … steps", description="Draws samples, measures, and keeps the best so far."
    ),
]
Size = Annotated[
    int,
    Field(
        ge=64,
        le=2048,
        multiple_of=8,
        title="Size of pictures",
        description="Pixels a side; with buckets the area of that square.",
    ),
]


class TrainingRequest(Frozen):
    """What was asked. `None` means whatever suits the checkpoint and the preset."""

    name: Name
    folder: Annotated[str, Field(max_length=4000)] = ""
    checkpoint: str | None = None
    preset: PresetId = "balanced"
    subject: SubjectId = "thing"
    trigger: Trigger = ""
    num_steps: NumSteps | None = None
    batch_size: BatchSize | None = None
    accumulation: Accumulation | None = None
    size: Size | None = None
    crop: CropId = "buckets"
    rank: Rank | None = None
    alpha: Alpha | None = None
    dropout: Dropout = 0.0
    decompose: Decompose = False
    gradual: Gradual | None = None
    reach: Reach | None = None
    learning_rate: LearningRate | None = None
    text_learning_rate: TextLearningRate | None = None
    optimizer: OptimizerId = "adamw"
    schedule: ScheduleId | None = None
    warmup: Warmup = 0.05
    snr_gamma: SnrGamma = 5.0
    noise_offset: NoiseOffset = 0.0
    caption_dropout: CaptionDropout | None = None
    shuffle_tags: bool = False
    masked: Masked = False
    mask_floor: MaskFloor = 0.05
    num_prior: NumPrior | None = None
    prior_prompts: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    """Of what the model knew, such as `a photo of a dog`; a pocket model needs none."""
    prior_weight: PriorWeight | None = None
    validation_share: ValidationShare = 0.1
    patience: Patience = 0
    look_every: LookEvery | None = None
    sample_prompts: Annotated[tuple[str, ...], Field(max_length=SHOWN_PROMPTS)] = ()
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0


class TrainingPlan(Frozen):
    """Everything decided: what a run trains, on what, how long."""

    kind: Literal["train"] = "train"
    name: Name
    folder: str
    checkpoint: str
    subject: SubjectId = "thing"
    trigger: Trigger
    num_pictures: int = 0
    num_steps: NumSteps
    batch_size: BatchSize
    accumulation: Accumulation
    size: Size
    crop: CropId
    rank: Rank
    alpha: Alpha
    dropout: Dropout
    decompose: Decompose = False
    gradual: Gradual = False
    reach: Reach
    learning_rate: LearningRate
    text_learning_rate: TextLearningRate
    optimizer: OptimizerId
    schedule: ScheduleId
    warmup: Warmup
    snr_gamma: SnrGamma
    noise_offset: NoiseOffset
    caption_dropout: CaptionDropout
    shuffle_tags: bool
    masked: Masked = False
    mask_floor: MaskFloor = 0.0
    num_prior: NumPrior
    prior_prompts: tuple[str, ...]
    prior_weight: PriorWeight
    validation_share: ValidationShare
    patience: Patience
    look_every: LookEvery
    sample_prompts: tuple[str, ...]
    guidance_scale: float
    """Of samples."""
    seed: int

    @property
    def num_held_out(self) -> int:
        """How many of the pictures are not learnt from."""
        if self.num_pictures < LEAST_FOR_VALIDATION or not self.validation_share:
            return 0
        return max(1, round(self.num_pictures * self.validation_share))

    @property
    def epochs(self) -> float:
        """How often each picture is learnt from."""
        learnt = max(1, self.num_pictures - self.num_held_out)
        return self.num_steps * self.batch_size * self.accumulation / learnt


def parse_training(values: Mapping[str, Any]) -> TrainingRequest:
    """Build a request from loose values such as a form's, a configuration file's or a command line's.

    Raises:
        InvalidRequest: naming the first field that is wrong.
    """
    try:
        return TrainingRequest.model_validate(dict(values))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = str(problem["loc"][0]) if problem["loc"] else ""
        if field == "name":
            raise InvalidRequest(
                "The adapter has no name, or one of more than 80 characters.", "Give it a short one.", "name"
            ) from None
        if problem["type"] == "extra_forbidden":
            known = ", ".join(TrainingRequest.model_fields)
            raise InvalidRequest(f"There is no setting {field!r}.", f"There are: {known}.", field) from None
        raise InvalidRequest(
            f"{label(field)} is {reprlib.repr(values.get(field))}, which does not work: {problem['msg'].lower()}.",
            "",
            field,
        ) from None


def resolve_training(request: TrainingRequest, catalogue: Catalogue, num_pictures: int) -> TrainingPlan:
    """Decide everything that was left open, for a data set of `num_pictures`.

    Raises:
        InvalidRequest: a checkpoint that is not in the catalogue.
    """
    try:
        checkpoint = catalogue.checkpoint(request.checkpoint or catalogue.default_checkpoint)
    except NotFound as error:
        raise InvalidRequest(error.message, error.hint, "checkpoint") from None
    values = usual_training(checkpoint, request.preset, num_pictures, request.subject)
    values |= request.model_dump(exclude_none=True, exclude={"checkpoint", "preset", "alpha", "look_every"})
    num_steps = int(values["num_steps"])
    prior = _prior(request, checkpoint)
    return TrainingPlan.model_validate(
        {
            **values,
            "checkpoint": checkpoint.id,
            "num_pictures": num_pictures,
            "trigger": request.trigger.strip(),
            "num_prior": prior,
            "alpha": request.alpha or float(values["rank"]),
            "look_every": request.look_every or training_look_every(num_steps),
            "sample_prompts": tuple(each.strip() for each in request.sample_prompts if each.strip()),
        }
    )


def _prior(request: TrainingRequest, checkpoint: Checkpoint) -> int:
    """How many pictures of what it knew.

    Raises:
        InvalidRequest: some are asked for, and nothing says of what.
    """
    if request.num_prior and not request.prior_prompts and not checkpoint.is_pocket:
        raise InvalidRequest(
            "There is no prompt for the pictures of what the model knew.",
            "Say what kind of thing it is that you teach, such as a photo of a dog.",
            "prior_prompts",
        )
    if request.num_prior is None:
        return usual_prior(checkpoint, request.subject, has_prompts=bool(request.prior_prompts))
    return request.num_prior


def training_look_every(num_steps: int) -> int:
    """How often to look at a training of so many steps: some eight times."""
    return max(5, min(1000, math.ceil(num_steps / 8)))


def label(field: str) -> str:
    """The short name of a field as people say it."""
    return short_name(TrainingPlan, field)
