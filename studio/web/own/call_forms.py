"""What programs give that call the studio by name: parameters with what they mean. A model's docstring is what the call
is for, its fields' descriptions are read by people and by language models."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from studio.domain.beginning import (
    NO_HIRES,
    USUAL_HIRES_STRENGTH,
    USUAL_MASK_BLUR,
    USUAL_STRENGTH,
    BorderDown,
    BorderLeft,
    BorderRight,
    BorderUp,
    HiresScale,
    HiresStrength,
    MaskBlur,
    ResizeMode,
    Strength,
)
from studio.domain.flash import FlashRequest
from studio.domain.request import (
    AcceleratorId,
    CheckpointId,
    Frozen,
    GuidanceScale,
    Height,
    NegativePrompt,
    NumImages,
    Prompt,
    SchedulerId,
    Steps,
    StyleId,
    Width,
)
from studio.domain.steering import NO_CONTROL, USUAL_CONTROL_SCALE, ControlId, ControlScale, ControlSource
from studio.domain.training import LearningRate, Name, NumSteps, Rank, Trigger
from studio.domain.training_presets import PresetId, SubjectId

_ANY_SEED = "The same seed and settings give the same picture; -1 is any."
MAX_WAIT_S = 60
_WAIT = f"Seconds to wait for the end before how it stands is told, up to {MAX_WAIT_S}."

ModelName = Annotated[CheckpointId | None, Field(description="An id that `models` lists; without, the usual model.")]
AcceleratorName = Annotated[
    AcceleratorId | None, Field(description="An id that `models` lists: makes 2 to 8 steps enough. Without, none.")
]
PICTURES: Mapping[str, str] = {"image": "init_image", "mask": "mask", "control_image": "control_image"}
"""The parameters that are pictures: what a request calls them."""
_FORMS = (
    "PNG, JPEG or WebP, in base64 or as a file that your client sends, or the name that a recipe has for one. No path "
    "and no address is read."
)
JobId = Annotated[str, Field(description="The id of a job, as the call that began it told.")]
Wait = Annotated[float, Field(ge=0, le=MAX_WAIT_S, description=_WAIT)]


class GenerateCall(Frozen):
    """Draw pictures of what a prompt says, and wait for them. Gives PNG files with their recipes inside, and the
    recipes: the seed, the steps, everything that makes the same picture again. With `image` another picture is drawn
    over, with a `mask` a part of it. What is left out is whatever suits the model. Leaving stops the job."""

    prompt: Prompt
    negative_prompt: NegativePrompt = ""
    checkpoint: ModelName = None
    width: Annotated[Width | None, Field(description="In pixels, a multiple of 8; without, the model's own.")] = None
    height: Annotated[Height | None, Field(description="In pixels, a multiple of 8; without, the model's own.")] = None
    num_inference_steps: Annotated[
        Steps | None, Field(description="More take longer; without, what suits the model or the accelerator.")
    ] = None
    guidance_scale: Annotated[
        GuidanceScale | None, Field(description="How closely to follow the prompt, 0 to 30; 1 or less is off.")
    ] = None
    seed: Annotated[int, Field(description=_ANY_SEED)] = -1
    scheduler: Annotated[SchedulerId | None, Field(description="The sampler: an id that `models` lists.")] = None
    accelerator: AcceleratorName = None
    style: Annotated[StyleId | None, Field(description="Words around the prompt: an id that `models` lists.")] = None
    num_images: NumImages = 1
    image: Annotated[str | None, Field(description=f"A picture to draw over. {_FORMS}")] = None
    strength: Strength = USUAL_STRENGTH
    mask: Annotated[
        str | None, Field(description=f"White where `image` may change; elsewhere it keeps every pixel. {_FORMS}")
    ] = None
    mask_blur: MaskBlur = USUAL_MASK_BLUR
    resize_mode: ResizeMode = "crop"
    outpaint_left: BorderLeft = 0
    outpaint_right: BorderRight = 0
    outpaint_up: BorderUp = 0
    outpaint_down: BorderDown = 0
    hires_scale: HiresScale = NO_HIRES
    hires_strength: HiresStrength = USUAL_HIRES_STRENGTH
    control: Annotated[
        ControlId, Field(description="A ControlNet, which keeps to `control_image`: an id that `models` lists.")
    ] = NO_CONTROL
    control_image: Annotated[str | None, Field(description=f"The shape to keep to. {_FORMS}")] = None
    control_source: ControlSource = "picture"
    control_scale: ControlScale = USUAL_CONTROL_SCALE


class FlashCall(Frozen):
    """Compare drawing in few steps, with an accelerator, with drawing in many, on the same prompts and seeds, and wait
    for it. Tells for each way of drawing the seconds, how many times faster it is, how alike its pictures are to the
    many steps' (1 is the same), and what judges say, each with its 95 % interval and the number of pictures. Leaving
    stops the job."""

    prompts: Annotated[list[Prompt], Field(description="What to draw, 1 to 50 texts.")]
    checkpoint: ModelName = None
    accelerator: Annotated[
        AcceleratorId | None, Field(description="An id that `models` lists; without, the first that fits the model.")
    ] = None
    steps: Annotated[list[Steps], Field(description="The few steps to compare, up to 8 numbers.")] = Field(
        default=list(FlashRequest.model_fields["steps"].default)
    )
    baseline_steps: Annotated[Steps, Field(description="The many steps that they are compared with.")] = 30
    width: Annotated[Width | None, Field(description="In pixels, a multiple of 8; without, the model's own.")] = None
    height: Annotated[Height | None, Field(description="In pixels, a multiple of 8; without, the model's own.")] = None
    seed: Annotated[int, Field(description=_ANY_SEED)] = -1
    num_images: Annotated[int, Field(description="Seeds for each prompt, 1 to 64.")] = 2


class EvaluateCall(Frozen):
    """Begin an evaluation: which of several ways of drawing follows prompts better, and is that more than luck? Tells
    the job's id; ask `job` for the results, which have means and differences with 95 % intervals and the number of
    prompts. It goes on if you leave; `stop` ends it, and the pictures stay."""

    systems: Annotated[
        list[dict[str, Any]],
        Field(
            description="The ways of drawing, the first of which is what the others are compared with. Each is an "
            "object with any of name, checkpoint, accelerator, num_inference_steps, guidance_scale, scheduler, style, "
            "negative_prompt, width, height and "
            "adapters (a list of objects with name and scale)."
        ),
    ]
    prompts: Annotated[
        list[str] | None, Field(description="Texts of your own; without, those of the set that suits the model.")
    ] = None
    prompt_set: Annotated[str | None, Field(description="Which set of prompts, by its name.")] = None
    num_prompts: Annotated[int, Field(description="How many of the set, up to 1000.")] = 34
    num_images: Annotated[int, Field(description="Pictures of each prompt.")] = 2
    seed: Annotated[int, Field(description="With the same one the pictures are the same.")] = 0
    name: Annotated[str, Field(description="What it is called in lists.")] = ""
    wait_s: Wait = 0


class TrainCall(Frozen):
    """Begin to train a LoRA, an adapter of a model, on a folder of pictures of this machine, with captions in text
    files beside them. Tells the id of the run, which `training` asks after. It goes on if you leave; `stop` ends it
    and keeps the best so far."""

    name: Name
    folder: Annotated[str, Field(description="The folder on the studio's machine.")]
    trigger: Trigger = ""
    checkpoint: ModelName = None
    preset: Annotated[PresetId, Field(description="How thoroughly.")] = "balanced"
    subject: Annotated[SubjectId, Field(description="What the pictures show.")] = "thing"
    num_steps: Annotated[NumSteps | None, Field(description="How long to train; without, what suits the rest.")] = None
    rank: Annotated[Rank | None, Field(description="How much it can learn; its file grows with it.")] = None
    learning_rate: Annotated[LearningRate | None, Field(description="How fast it learns; without, what is usual.")] = (
        None
    )
    seed: Annotated[int, Field(description="Whatever is random depends on it.")] = 0


class TrainingCall(Frozen):
    """How a training goes: its steps, its losses, the best look so far, and the adapter that came of it, whose name a
    prompt of `generate` takes as <lora:NAME:1>."""

    run: Annotated[str, Field(description="The id of a run, as `train_lora` told.")]
    wait_s: Wait = 0


class JobCall(Frozen):
    """How a job stands, and what came of it once it is over: recipes and addresses of pictures, or the results of a
    comparison or an evaluation."""

    job: JobId
    wait_s: Wait = 0


class StopCall(Frozen):
    """Stop a job within a step; what is ready stays."""

    job: JobId


class ModelsCall(Frozen):
    """What there is to choose from: models, accelerators, ControlNets, samplers and styles, by the ids that other calls
    take, with what is usual for each and its licence."""


class AdaptersCall(Frozen):
    """The adapters (LoRA and its kin) that there are. The tag of one, put into a prompt, adds it."""
