"""What can be used: families, checkpoints, schedulers and styles, all rows of one TOML file.

`Catalogue.resolve` is the only place where defaults are filled in and where values are checked against each other.
"""

import secrets
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from studio.domain.beginning_rules import decided_beginning, grown
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.request import MAX_SEED, NO_ACCELERATOR, RANDOM_SEED, GenerationRequest, ResolvedRequest, label
from studio.domain.steering import NO_CONTROL, HintKind
from studio.domain.timesteps import Grid, timesteps_on

PredictionType = Literal["epsilon", "v_prediction", "sample"]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str


class Family(_Row):
    """A generation of Stable Diffusion whose checkpoints share their shapes.

    `latent_rgb` `(4, 3)` and its bias map scaled latents to RGB in about [-1, 1]. Sizes are in pixels. `…_values`: how
    many numbers its weights are, all text encoders together. `text_width`: of what a UNet is told of a token.
    """

    text_length: int
    unet_values: int
    text_values: int
    text_width: int
    vae_values: int
    vae_scale_factor: int
    latent_channels: int
    latent_rgb: tuple[tuple[float, float, float], ...]
    latent_rgb_bias: tuple[float, float, float] = (0.0, 0.0, 0.0)
    native_size: int
    max_size: int
    default_guidance: float


class Checkpoint(_Row):
    """Weights of a family: where they are, what they expect, and what they may be used for."""

    family: str
    prediction_type: PredictionType | None
    """None while a file of one's own does not say; it is measured when it is loaded."""
    native_size: int
    min_size: int
    max_size: int
    default_steps: int
    default_guidance: float
    default_scheduler: str
    licence: str
    note: str
    folder: str | None = None
    """A diffusers folder, relative to the project root."""
    hub_id: str | None = None
    revision: str | None = None
    """Of `hub_id`; None for its main branch."""
    mirrors: tuple[str, ...] = ()
    """Where the same weights lie if `hub_id` is gone, in order."""
    vae_hub_id: str | None = None
    """A repository whose root holds a better autoencoder for it."""
    download_gb: float | None = None
    half_gb: float | None = None
    """As `download_gb`, in half precision; None where the hub has no such files."""
    is_pocket: bool = False
    is_own: bool = False
    """Found in the models folder; no row of the file."""
    examples: tuple[str, ...] = ()

    def number_format(self, usual: str) -> str:
        """What it computes in where large models compute in `usual`: miniatures gain nothing from short numbers, and in
        float32 they match plain diffusers exactly."""
        return "float32" if self.is_pocket else usual


class SchedulerRow(_Row):
    """A sampler: the diffusers class with its options, and what A1111-family readers call it."""

    class_name: str
    options: dict[str, Any] = {}
    a1111_sampler: str
    a1111_schedule: str
    note: str
    max_steps: int | None = None
    """Most steps that it can take; None for as many as a request may ask for."""


class _Fitting(_Row):
    """What is made for checkpoints of a family."""

    family: str
    checkpoint: str | None = None
    """The only one that it fits; None for all of the family but miniatures."""

    def suits(self, checkpoint: Checkpoint) -> bool:
        """Whether it was made for `checkpoint`, or for its family."""
        if self.checkpoint is not None:
            return self.checkpoint == checkpoint.id
        return self.family == checkpoint.family and not checkpoint.is_pocket


class Accelerator(_Fitting):
    """An adapter that was distilled so that checkpoints draw in few steps, and how they are sampled with it."""

    scheduler: str
    grid: Grid | None = None
    """Where its timesteps lie; None leaves them to the sampler."""
    trained_steps: tuple[int, ...]
    default_steps: int
    default_guidance: float = 1.0
    max_guidance: float = 1.0
    """More of it than it was trained for spoils the picture."""
    lora_scale: float = 1.0
    licence: str
    is_commercial: bool
    """Whether what is made with it may be sold."""
    note: str
    file: str | None = None
    """An adapter file, relative to the project root."""
    hub_id: str | None = None
    hub_files: Mapping[int, str] = {}
    """Files of `hub_id` by the number of steps that each is for; a single one serves for all."""

    def hub_file(self, steps: int) -> str:
        """The file for a picture of `steps` steps: that of the nearest number of steps that there is one for."""
        return self.hub_files[min(self.hub_files, key=lambda known: (abs(known - steps), known))]

    def remarks(self, steps: int, guidance_scale: float, scheduler: str) -> tuple[str, ...]:
        """What of these it was not made for, a sentence each."""
        said: list[str] = []
        if steps not in self.trained_steps:
            known = _listed(self.trained_steps)
            said.append(f"{self.title} was made for {known} steps; {steps} may come out unfinished or overdone.")
        if guidance_scale > self.max_guidance:
            most = f"up to {self.max_guidance:g}" if self.max_guidance > 1 else "off (1)"
            said.append(f"{self.title} was made for guidance {most}; {guidance_scale:g} overdoes colours and edges.")
        if scheduler != self.scheduler:
            said.append(f"{self.title} was made for another sampler than this one.")
        return tuple(said)

    def timesteps(self, steps: int) -> tuple[int, ...] | None:
        """At which timesteps a picture of `steps` steps is drawn; None for the sampler's own."""
        return timesteps_on(self.grid, steps) if self.grid else None


class Style(_Row):
    """Words around a prompt; `{prompt}` stands for what was typed."""

    template: str
    negative: str = ""
    for_pocket: bool = False


class Control(_Fitting):
    """A ControlNet: of which family, what it reads, and where it is."""

    reads: HintKind
    licence: str
    note: str
    file: str | None = None
    """One that comes with the studio, relative to the project root."""
    hub_id: str | None = None


_RowT = TypeVar("_RowT", bound=_Row)


class Catalogue(BaseModel):
    """All rows, looked up by id. `rows` and `accelerator_rows` are those of the file; a person's own come and go beside
    them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default_checkpoint: str
    families: tuple[Family, ...]
    rows: tuple[Checkpoint, ...] = Field(alias="checkpoints")
    schedulers: tuple[SchedulerRow, ...]
    accelerator_rows: tuple[Accelerator, ...] = Field(default=(), alias="accelerators")
    controls: tuple[Control, ...] = ()
    styles: tuple[Style, ...]
    _own: tuple[Checkpoint, ...] = PrivateAttr(default=())
    _own_accelerators: tuple[Accelerator, ...] = PrivateAttr(default=())

    @classmethod
    def load(cls, path: Path) -> "Catalogue":
        """Read and validate a catalogue file."""
        return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Every checkpoint that can be asked for."""
        return (*self.rows, *self._own)

    @property
    def accelerators(self) -> tuple[Accelerator, ...]:
        """Every accelerator that can be asked for."""
        return (*self.accelerator_rows, *self._own_accelerators)

    def set_own_accelerators(self, accelerators: tuple[Accelerator, ...]) -> None:
        """Put these beside the rows of the file, in place of those of the last time."""
        self._own_accelerators = accelerators

    def set_own(self, checkpoints: tuple[Checkpoint, ...]) -> None:
        """Put these beside the rows of the file, in place of those of the last time."""
        self._own = checkpoints

    def family(self, family_id: str) -> Family:
        return _find(self.families, family_id, "family")

    def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        return _find(self.checkpoints, checkpoint_id, "model")

    def scheduler(self, scheduler_id: str) -> SchedulerRow:
        return _find(self.schedulers, scheduler_id, "sampler")

    def accelerator(self, accelerator_id: str) -> Accelerator | None:
        """That of a recipe; None for `NO_ACCELERATOR`."""
        return None if accelerator_id == NO_ACCELERATOR else _find(self.accelerators, accelerator_id, "accelerator")

    def accelerators_for(self, checkpoint: Checkpoint) -> tuple[Accelerator, ...]:
        """Those that were distilled for `checkpoint` or its family."""
        return tuple(row for row in self.accelerators if row.suits(checkpoint))

    def control(self, control_id: str) -> Control | None:
        """That of a recipe; None for `NO_CONTROL`."""
        return None if control_id == NO_CONTROL else _find(self.controls, control_id, "ControlNet")

    def controls_for(self, checkpoint: Checkpoint) -> tuple[Control, ...]:
        """Those that were made for `checkpoint` or its family."""
        return tuple(row for row in self.controls if row.suits(checkpoint))

    def style(self, style_id: str) -> Style:
        return _find(self.styles, style_id, "style")

    def styles_for(self, checkpoint: Checkpoint) -> tuple[Style, ...]:
        """The styles whose words `checkpoint` understands; the first changes nothing."""
        return tuple(s for s in self.styles if s.template == "{prompt}" or s.for_pocket == checkpoint.is_pocket)

    def checkpoint_of(self, request: GenerationRequest) -> Checkpoint:
        """That which `request` asks for, or the default one; raises InvalidRequest where there is none of that name."""
        return _named(self.checkpoints, request.checkpoint, self.default_checkpoint, "checkpoint")

    def resolve(self, request: GenerationRequest) -> ResolvedRequest:
        """Decide everything that `request` left open.

        Raises:
            InvalidRequest: a name that is not in the catalogue, a size the checkpoint cannot draw, a style or an
                accelerator for another kind of checkpoint, more steps than the sampler can take.
        """
        checkpoint = self.checkpoint_of(request)
        accelerator = self._suitable(request.accelerator, checkpoint)
        usual = accelerator or checkpoint
        default_scheduler = accelerator.scheduler if accelerator else checkpoint.default_scheduler
        scheduler = _named(self.schedulers, request.scheduler, default_scheduler, "scheduler")
        style = _named(self.styles_for(checkpoint), request.style, self.styles[0].id, "style")
        width, height = grown(request, checkpoint.native_size)
        for field, size in (("width", width), ("height", height)):
            _check_size(field, size, checkpoint)
        steps = _or(request.num_inference_steps, usual.default_steps)
        _check_steps(steps, scheduler)
        return ResolvedRequest(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            checkpoint=checkpoint.id,
            style=style.id,
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=_or(request.guidance_scale, usual.default_guidance),
            scheduler=scheduler.id,
            accelerator=accelerator.id if accelerator else NO_ACCELERATOR,
            decoder=request.decoder,
            seed=secrets.randbelow(MAX_SEED + 1) if request.seed == RANDOM_SEED else request.seed,
            num_images=request.num_images,
            clip_skip=request.clip_skip,
            typed_prompt=request.typed_prompt,
            original_prompt=request.original_prompt,
            **decided_beginning(request, checkpoint, accelerator, steps),
            **self._steering(request, checkpoint),
        )

    def _suitable(self, accelerator_id: str | None, checkpoint: Checkpoint) -> Accelerator | None:
        try:
            accelerator = self.accelerator(_or(accelerator_id, NO_ACCELERATOR))
        except NotFound as error:
            raise InvalidRequest(error.message, error.hint, "accelerator") from None
        if accelerator is None or accelerator.suits(checkpoint):
            return accelerator
        fitting = ", ".join(row.title for row in self.accelerators_for(checkpoint))
        instead = f"Choose one of those that were ({fitting}), or none." if fitting else "There is none for it yet."
        raise InvalidRequest(f"{accelerator.title} was not made for {checkpoint.title}.", instead, "accelerator")

    def _steering(self, request: GenerationRequest, checkpoint: Checkpoint) -> dict[str, Any]:
        """The fields about what a picture keeps to; none of them where nothing is chosen."""
        try:
            control = self.control(request.control)
        except NotFound as error:
            raise InvalidRequest(error.message, error.hint, "control") from None
        if control is None:
            if request.control_image:
                raise InvalidRequest(
                    "There is a shape to keep to, and no ControlNet that reads it.", "Choose one.", "control"
                )
            return {}
        if not control.suits(checkpoint):
            fitting = ", ".join(row.id for row in self.controls_for(checkpoint))
            instead = f"There is {fitting} for it." if fitting else "There is none for it yet."
            raise InvalidRequest(f"{control.title} was not made for {checkpoint.title}.", instead, "control")
        if not request.control_image:
            raise InvalidRequest(
                f"{control.title} has no picture to keep to.", "Give one, or choose no ControlNet.", "control_image"
            )
        names = ("control", "control_image", "control_source", "control_scale")
        return {name: getattr(request, name) for name in names}

    def styled(self, request: ResolvedRequest) -> tuple[str, str]:
        """The prompt and negative prompt with the style's words around them."""
        style = self.style(request.style)
        negative = ", ".join(text for text in (request.negative_prompt, style.negative) if text)
        return style.template.replace("{prompt}", request.prompt), negative


def _listed(numbers: Sequence[int]) -> str:
    """2, 4 or 8; 2 to 8."""
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}" if first else last


def _find(rows: Sequence[_RowT], row_id: str, kind: str) -> _RowT:
    for row in rows:
        if row.id == row_id:
            return row
    raise NotFound(f"There is no {kind} called {row_id!r}.", f"Known: {', '.join(row.id for row in rows)}.")


def _named(rows: Sequence[_RowT], asked: str | None, default: str, field: str) -> _RowT:
    try:
        return _find(rows, default if asked is None else asked, label(field).lower())
    except NotFound as error:
        raise InvalidRequest(error.message, error.hint, field) from None


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _check_size(field: str, size: int, checkpoint: Checkpoint) -> None:
    if not checkpoint.min_size <= size <= checkpoint.max_size:
        raise InvalidRequest(
            f"{label(field)} is {size} px; {checkpoint.title} draws from {checkpoint.min_size} "
            f"to {checkpoint.max_size} px.",
            f"Its native size is {checkpoint.native_size} px.",
            field,
        )


def _check_steps(steps: int, scheduler: SchedulerRow) -> None:
    if scheduler.max_steps is not None and steps > scheduler.max_steps:
        raise InvalidRequest(
            f"Steps is {steps}; {scheduler.title} takes at most {scheduler.max_steps}.",
            "Ask for fewer steps, or choose another sampler.",
            "num_inference_steps",
        )
