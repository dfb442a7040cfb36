"""What holds between a picture to begin from, its mask, its borders and a second pass, before any of them is opened."""

from typing import TYPE_CHECKING, Any

from studio.domain.beginning import (
    BORDERS,
    NO_HIRES,
    NO_PICTURE,
    USUAL_HIRES_STRENGTH,
    USUAL_MASK_BLUR,
    USUAL_STRENGTH,
)
from studio.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from studio.domain.catalogue import Accelerator, Checkpoint
    from studio.domain.request import GenerationRequest

_NO_HIRES: dict[str, Any] = {
    "hires_scale": NO_HIRES,
    "hires_strength": USUAL_HIRES_STRENGTH,
    "hires_steps": 0,
    "hires_upscaler": "lanczos",
}


def has_borders(request: "GenerationRequest") -> bool:
    """Whether the picture is to grow beyond its edges."""
    return any(getattr(request, border) for border in BORDERS)


def grown(request: "GenerationRequest", usual: int) -> tuple[int, int]:
    """Width and height with what is added around it, in pixels; `usual` where none is asked for."""
    width = usual if request.width is None else request.width
    height = usual if request.height is None else request.height
    return (
        width + request.outpaint_left + request.outpaint_right,
        height + request.outpaint_up + request.outpaint_down,
    )


def check_beginning(request: "GenerationRequest") -> None:
    """Refuse a mask or borders without a picture, and a second pass for a picture of which a part is to stay.

    Raises:
        InvalidRequest: naming the field that has nothing to act on.
    """
    if not request.init_image:
        choose = "Choose a picture to start from first."
        if request.mask:
            raise InvalidRequest("There is a mask, and no picture that it belongs to.", choose, "mask")
        if has_borders(request):
            raise InvalidRequest("There is no picture that could grow beyond its edges.", choose, "outpaint_left")
    if request.hires_scale > NO_HIRES and (request.mask or has_borders(request)):
        raise InvalidRequest(
            "A second pass would redraw the part that is to stay as it is.",
            "Change the part first, then make the result larger.",
            "hires_scale",
        )


def decided_beginning(
    request: "GenerationRequest", checkpoint: "Checkpoint", accelerator: "Accelerator | None", steps: int
) -> dict[str, Any]:
    """The fields of a recipe that say what it begins from and whether a second pass follows. What has no effect is as
    usual, so that it is the same recipe whatever a form said.

    Raises:
        InvalidRequest: they do not fit each other, or the checkpoint cannot draw that large.
    """
    check_beginning(request)
    return {
        "init_image": request.init_image,
        "strength": request.strength if request.init_image else USUAL_STRENGTH,
        "mask": request.mask,
        "mask_blur": request.mask_blur if request.mask else USUAL_MASK_BLUR,
        **(_second_pass(request, checkpoint, accelerator, steps) if request.hires_scale > NO_HIRES else _NO_HIRES),
    }


def _second_pass(
    request: "GenerationRequest", checkpoint: "Checkpoint", accelerator: "Accelerator | None", steps: int
) -> dict[str, Any]:
    longest = max(grown(request, checkpoint.native_size))
    if round(longest * request.hires_scale / 8) * 8 > checkpoint.max_size:
        most = checkpoint.max_size / longest // 0.25 * 0.25
        raise InvalidRequest(
            f"Enlarged {request.hires_scale:g} times, {longest} px are more than the {checkpoint.max_size} px that "
            f"{checkpoint.title} draws.",
            f"From this size, {most:g} times is the most." if most > 1 else "Begin with a smaller size.",
            "hires_scale",
        )
    hires_steps = request.hires_steps or steps
    if hires_steps != steps and accelerator is not None and accelerator.grid is not None:
        raise InvalidRequest(
            f"{accelerator.title} draws both passes in the same number of steps; these are {steps} and {hires_steps}.",
            "Leave the steps of the second pass at 0.",
            "hires_steps",
        )
    return {
        "hires_scale": request.hires_scale,
        "hires_strength": request.hires_strength,
        "hires_steps": hires_steps,
        "hires_upscaler": request.hires_upscaler,
    }


def without_picture(values: dict[str, Any]) -> dict[str, Any]:
    """Loose values of a request without the picture that it began from, and what belongs to that."""
    gone = {"init_image": NO_PICTURE, "mask": NO_PICTURE, **dict.fromkeys(BORDERS, 0)}
    return {**values, **{name: empty for name, empty in gone.items() if name in values}}
