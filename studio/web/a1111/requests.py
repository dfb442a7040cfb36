"""What clients of AUTOMATIC1111's API ask for, read into requests of ours.

A client that sends no number gets the checkpoint's own. What would change the picture and is not done here is refused:
better no picture than another one than was asked for. Fields that nobody here knows are ignored, as A1111 does.
"""

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from studio.domain.beginning import NO_HIRES, SOURCE_FIELDS, ResizeModeName, UpscalerName
from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest
from studio.domain.request import RANDOM_SEED, GenerationRequest, parse_request
from studio.infotext import request_from_infotext
from studio.web.a1111.choices import Chosen
from studio.web.a1111.names import checkpoint_named, scheduler_named, style_named
from studio.web.bodies import MAX_JSON_BYTES

Count = Annotated[int, Field(ge=1, le=64)]


class Asked(BaseModel):
    """The fields that both ways of drawing share, by A1111's names. None: whatever suits the checkpoint."""

    # Only where texts have a limit does pydantic refuse those that cannot be written: halves of surrogate pairs.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, str_max_length=MAX_JSON_BYTES)

    prompt: str = ""
    negative_prompt: str = ""
    styles: tuple[str, ...] = ()
    seed: int = RANDOM_SEED
    subseed: int = RANDOM_SEED
    subseed_strength: float = 0
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    sampler_name: str = ""
    sampler_index: str = ""
    scheduler: str = ""
    batch_size: Count = 1
    n_iter: Count = 1
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    restore_faces: bool = False
    tiling: bool = False
    eta: float | None = None
    s_churn: float = 0
    s_tmin: float = 0
    s_tmax: float = 0
    s_noise: float = 1
    override_settings: dict[str, Any] = {}
    override_settings_restore_afterwards: bool = True
    refiner_checkpoint: str = ""
    script_name: str = ""
    alwayson_scripts: dict[str, Any] = {}
    send_images: bool = True
    save_images: bool = False
    infotext: str = ""
    denoising_strength: float | None = None


class Txt2Img(Asked):
    """What only a picture from noise may have: a second pass that makes it larger."""

    enable_hr: bool = False
    firstphase_width: int = 0
    firstphase_height: int = 0
    hr_scale: float = 2.0
    hr_upscaler: str = "Latent"
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    hr_checkpoint_name: str = ""
    hr_sampler_name: str = ""
    hr_scheduler: str = ""
    hr_prompt: str = ""
    hr_negative_prompt: str = ""


class Img2Img(Asked):
    """What a picture has that begins from another one.

    A masked part begins from what is under the mask, whether 0 or 1 is asked for by `inpainting_fill`: clients send 0
    without meaning it. `inpaint_full_res` would cut the masked part out and draw it as large as the picture; since many
    clients send it without being asked, it is accepted, the whole picture is drawn, and the answer says so.
    """

    init_images: tuple[str, ...] = ()
    mask: str = ""
    mask_blur: int | None = None
    inpainting_fill: int = 0
    inpaint_full_res: bool = False
    inpaint_full_res_padding: int = 0
    inpainting_mask_invert: bool = False
    initial_noise_multiplier: float = 1
    resize_mode: int = 0
    include_init_images: bool = False


AskedT = TypeVar("AskedT", bound=Asked)

FIELDS: Mapping[str, str] = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "steps": "num_inference_steps",
    "cfg_scale": "guidance_scale",
    "width": "width",
    "height": "height",
}
"""Theirs → ours, for what means the same."""
THEIR_NAMES: Mapping[str, str] = {
    **{ours: theirs for theirs, ours in FIELDS.items()},
    "scheduler": "sampler_name",
    "style": "styles",
    "num_images": "batch_size",
    "checkpoint": "sd_model_checkpoint",
    "clip_skip": "CLIP_stop_at_last_layers",
    "init_image": "init_images",
    "strength": "denoising_strength",
    "hires_strength": "denoising_strength",
    "hires_scale": "hr_scale",
    "hires_steps": "hr_second_pass_steps",
    "hires_upscaler": "hr_upscaler",
}
"""Ours → theirs, for those who read what was wrong."""

SETTINGS = ("sd_model_checkpoint", "CLIP_stop_at_last_layers")
"""Of A1111's settings those that mean something here."""
RESIZE_MODES: tuple[ResizeModeName, ...] = ("stretch", "crop", "fill")
UPSCALERS: Mapping[str, UpscalerName] = {"latent": "latent", "lanczos": "lanczos"}

_NOT_DONE: Mapping[str, tuple[str, tuple[object, ...]]] = {
    "tiling": ("A picture that tiles", (False,)),
    "restore_faces": ("Restoring faces", (False,)),
    "subseed_strength": ("A variation seed", (0,)),
    "seed_resize_from_h": ("The seed of another height", (-1, 0)),
    "seed_resize_from_w": ("The seed of another width", (-1, 0)),
    "eta": ("Another eta than the sampler's", (None, 0, 1)),  # clients send either without meaning it
    "s_churn": ("Churn", (0,)),
    "s_tmin": ("A least sigma for churn", (0,)),
    "s_tmax": ("A highest sigma for churn", (0,)),
    "s_noise": ("Other noise than the sampler's", (1,)),
    "refiner_checkpoint": ("A refiner", ("", "None")),
    "script_name": ("A script", ("", "None")),
    "inpainting_fill": ("Filling the masked part with noise", (0, 1)),
    "initial_noise_multiplier": ("More or less noise", (1,)),
}
"""Field → what it asks for, and the values that ask for nothing."""
_NOT_DONE_TWICE: Mapping[str, tuple[str, tuple[object, ...]]] = {
    "firstphase_width": ("A width of the first pass", (0,)),
    "firstphase_height": ("A height of the first pass", (0,)),
    "hr_checkpoint_name": ("Another model for the second pass", ("", "Use same checkpoint")),
    "hr_sampler_name": ("Another sampler for the second pass", ("", "Use same sampler")),
    "hr_scheduler": ("Another schedule for the second pass", ("", "Use same scheduler")),
}


def read_asked(kind: type[AskedT], body: Mapping[str, Any]) -> AskedT:
    """What a client asks for; null is the same as nothing.

    Raises:
        InvalidRequest: naming the first field that has no such value, or asks for what is not done here.
    """
    try:
        asked = kind.model_validate({name: value for name, value in body.items() if value is not None})
    except ValidationError as error:
        raise _invalid(error.errors(include_url=False)[0]) from None
    _refuse_not_done(asked, _NOT_DONE)
    for name, script in asked.alwayson_scripts.items():
        if not isinstance(script, dict) or script.get("args", True):  # pyright: ignore[reportUnknownMemberType]
            raise _not_done("A script", "alwayson_scripts", name)
    if isinstance(asked, Txt2Img) and asked.enable_hr:
        _refuse_not_done(asked, _NOT_DONE_TWICE)
        for field, first in (("hr_prompt", asked.prompt), ("hr_negative_prompt", asked.negative_prompt)):
            if getattr(asked, field) not in ("", first):
                raise _not_done("Another prompt for the second pass", field, getattr(asked, field))
    return asked


def request_of(asked: Asked, chosen: Chosen, catalogue: Catalogue) -> GenerationRequest:
    """Our request for theirs, still without the pictures that it begins from; `chosen` holds for what it leaves open.

    Raises:
        InvalidRequest: a value that is out of range, or a name that nothing has.
        NotFound: a sampler that is not there.
    """
    values = _of_infotext(asked, catalogue)
    overrides = chosen_in(asked.override_settings, catalogue)
    values = {**vars(chosen), **values, **{name: value for name, value in vars(overrides).items() if value is not None}}
    values |= {ours: getattr(asked, theirs) for theirs, ours in FIELDS.items() if theirs in asked.model_fields_set}
    values |= {"style": style_named(asked.styles, catalogue)} if asked.styles else {}
    values["num_images"] = asked.batch_size * asked.n_iter
    values = {name: value for name, value in values.items() if value is not None}
    so_far = parse_request(values)
    checkpoint = catalogue.checkpoint_of(so_far)
    sampler = asked.sampler_name or asked.sampler_index
    scheduler = scheduler_named(sampler, asked.scheduler, checkpoint, catalogue)
    values |= {"scheduler": scheduler} if scheduler else {}
    if isinstance(asked, Txt2Img) and asked.enable_hr:
        usual = checkpoint.native_size
        values |= _second_pass(asked, so_far.width or usual, so_far.height or usual)
    if isinstance(asked, Img2Img):
        values |= _beginning(asked)
    return parse_request(values)


def chosen_in(settings: Mapping[str, Any], catalogue: Catalogue) -> Chosen:
    """What A1111's `settings` choose of `SETTINGS`; all others are ignored.

    Raises:
        InvalidRequest: there is no such model, or clip skip is out of range.
    """
    name, clip_skip = map(settings.get, SETTINGS)
    if clip_skip is not None:
        clip_skip = parse_request({"prompt": "-", "clip_skip": clip_skip}).clip_skip
    checkpoint = checkpoint_named(name, catalogue).id if name is not None else None
    return Chosen(checkpoint=checkpoint, clip_skip=clip_skip)


def _resize_mode(asked: Img2Img) -> ResizeModeName:
    if not 0 <= asked.resize_mode < len(RESIZE_MODES):
        raise InvalidRequest(
            f"resize_mode is {asked.resize_mode}; it must be 0 (stretch), 1 (crop) or 2 (fill).",
            "The size of latents is not changed here.",
            "resize_mode",
        )
    return RESIZE_MODES[asked.resize_mode]


def _of_infotext(asked: Asked, catalogue: Catalogue) -> dict[str, Any]:
    """What the text of an earlier picture gives; pictures that it names have to be sent, and prompts that are sent
    leave nothing of how its own came about."""
    if not asked.infotext.strip():
        return {}
    values = request_from_infotext(asked.infotext, catalogue).request.model_dump(exclude_unset=True)
    left = (*SOURCE_FIELDS, "control", *(("typed_prompt", "original_prompt") if asked.prompt else ()))
    return {name: value for name, value in values.items() if name not in left}


def _second_pass(asked: Txt2Img, width: int, height: int) -> dict[str, Any]:
    upscaler = UPSCALERS.get(asked.hr_upscaler.casefold())
    if upscaler is None:
        raise InvalidRequest(
            f"There is no upscaler called {asked.hr_upscaler!r}.", "There are Latent and Lanczos.", "hr_upscaler"
        )
    values = {
        "hires_scale": _scale(asked, width, height),
        "hires_steps": asked.hr_second_pass_steps,
        "hires_upscaler": upscaler,
    }
    return values | ({} if asked.denoising_strength is None else {"hires_strength": asked.denoising_strength})


def _scale(asked: Txt2Img, width: int, height: int) -> float:
    """How many times larger the second pass makes a picture of `width` × `height` px."""
    targets = {"hr_resize_x": (asked.hr_resize_x, width), "hr_resize_y": (asked.hr_resize_y, height)}
    scales = [target / side for target, side in targets.values() if target > 0 and side > 0]
    scale = scales[0] if scales else asked.hr_scale
    if scale <= NO_HIRES:
        raise InvalidRequest(
            f"The second pass would make the picture {scale:g} times as large; it must make it larger.",
            "Leave enable_hr out, or ask for more.",
            "hr_scale",
        )
    for name, (target, side) in targets.items():
        reached = round(side * scale / 8) * 8
        if target not in (0, reached):
            raise InvalidRequest(
                f"{name} is {target}; from {width} × {height} px the second pass reaches {reached}.",
                "Ask for a size of the same form, in multiples of 8.",
                name,
            )
    return scale


def _beginning(asked: Img2Img) -> dict[str, Any]:
    given = {"strength": asked.denoising_strength, "mask_blur": asked.mask_blur, "resize_mode": _resize_mode(asked)}
    return {name: value for name, value in given.items() if value is not None}


def _refuse_not_done(asked: Asked, fields: Mapping[str, tuple[str, tuple[object, ...]]]) -> None:
    for field, (what, harmless) in fields.items():
        value = getattr(asked, field, harmless[0])
        if value not in harmless:
            raise _not_done(what, field, value)


def _not_done(what: str, field: str, value: object) -> InvalidRequest:
    return InvalidRequest(
        f"{what} is not offered here, and {field} is {reprlib.repr(value)}.", f"Leave {field} out.", field
    )


def _invalid(problem: ErrorDetails) -> InvalidRequest:
    field = str(problem["loc"][0])
    kinds = {
        "int": "a whole number",
        "bool": "true or false",
        "string": "a text",
        "tuple": "a list",
        "list": "a list",
        "dict": "an object",
        "greater": f"at least {problem.get('ctx', {}).get('ge')}",
        "less": f"at most {problem.get('ctx', {}).get('le')}",
    }
    expected = kinds.get(problem["type"].partition("_")[0], "a number")
    return InvalidRequest(f"{field} is {reprlib.repr(problem['input'])}; it must be {expected}.", "", field)
