"""What a picture may begin from instead of noise alone: another picture, a part of one, or a smaller one of itself.

The types of these fields of a request. Pictures are named by the hash under which `studio.sources` keeps them.
"""

from typing import Annotated, Literal, get_args

from pydantic import Field

NO_PICTURE = ""
USUAL_STRENGTH = 0.75
USUAL_MASK_BLUR = 4
USUAL_HIRES_STRENGTH = 0.3
NO_HIRES = 1.0
MAX_BORDER_PX = 1024
SOURCE_FIELDS = ("init_image", "mask", "control_image")
"""Fields of a request that name a kept picture."""
BORDERS = ("outpaint_left", "outpaint_right", "outpaint_up", "outpaint_down")

ResizeModeName = Literal["crop", "stretch", "fill"]
UpscalerName = Literal["lanczos", "latent"]
UPSCALERS: tuple[UpscalerName, ...] = get_args(UpscalerName)

InitImage = Annotated[
    str,
    Field(
        pattern=r"^([0-9a-f]{64})?$",
        title="What to start from — picture",
        description="A picture that is drawn over instead of beginning from noise.",
    ),
]
Strength = Annotated[
    float,
    Field(
        ge=0.05,
        le=1.0,
        title="How much to change — strength",
        description="The share of the steps that are drawn anew: 0.3 keeps the layout, 1 keeps hardly anything.",
        json_schema_extra={"step": 0.05},
    ),
]
MaskImage = Annotated[
    str,
    Field(
        pattern=r"^([0-9a-f]{64})?$",
        title="Change only a part — mask",
        description="White where the picture may change; elsewhere it keeps every pixel.",
    ),
]
MaskBlur = Annotated[
    int,
    Field(
        ge=0,
        le=64,
        title="How softly the change begins — mask blur",
        description="Over how many pixels, inside the painted part, the old picture fades into the new one.",
    ),
]
ResizeMode = Annotated[
    ResizeModeName,
    Field(
        title="How it fits the size — resize mode",
        description="Crop cuts off what is over, stretch distorts, fill goes on with the colours at its edges.",
    ),
]
HiresScale = Annotated[
    float,
    Field(
        ge=NO_HIRES,
        le=4.0,
        title="How much larger — enlargement",
        description="The finished picture is enlarged so many times and refined once more; 1 leaves it as it is.",
        json_schema_extra={"step": 0.25},
    ),
]
HiresStrength = Annotated[
    float,
    Field(
        ge=0.05,
        le=1.0,
        title="How much to refine — strength of the second pass",
        description="Less keeps what the first pass drew, more draws new detail, and may draw things twice.",
        json_schema_extra={"step": 0.05},
    ),
]
HiresSteps = Annotated[
    int,
    Field(
        ge=0,
        le=150,
        title="Steps of the second pass",
        description="Of these, the share that its strength says is drawn. 0: as many as the first pass has.",
    ),
]
HiresUpscaler = Annotated[
    UpscalerName,
    Field(
        title="How it is enlarged — upscaler",
        description="Lanczos enlarges pixels and keeps edges; latent enlarges latents, is quicker, and "
        "needs a strength of 0.5 or more.",
    ),
]


def _border(side: str) -> object:
    return Field(
        ge=0,
        le=MAX_BORDER_PX,
        multiple_of=8,
        title=f"Pixels to add {side}",
        description="A multiple of 8; what is added is drawn, what was there keeps every pixel.",
    )


BorderLeft = Annotated[int, _border("on the left")]
BorderRight = Annotated[int, _border("on the right")]
BorderUp = Annotated[int, _border("above")]
BorderDown = Annotated[int, _border("below")]


def steps_run(steps: int, strength: float) -> int:
    """How many of `steps` are drawn at `strength`: its share, as diffusers counts it, and one at least."""
    return max(1, min(steps, int(steps * strength + 1e-9)))
