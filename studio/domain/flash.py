"""A comparison of few steps with many: what a person asks for, and the pictures that it comes to."""

import reprlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field, ValidationError

from studio.domain.catalogue import Accelerator, Catalogue, Checkpoint
from studio.domain.errors import InvalidRequest
from studio.domain.request import (
    MAX_SEED,
    NO_ACCELERATOR,
    RANDOM_SEED,
    AcceleratorId,
    CheckpointId,
    DecoderId,
    Frozen,
    GenerationRequest,
    GuidanceScale,
    Height,
    NegativePrompt,
    Prompt,
    ResolvedRequest,
    SchedulerId,
    Steps,
    Width,
    invalid_request,
)

MAX_PROMPTS, MAX_SEEDS, MAX_COUNTS = 50, 64, 8
_T = TypeVar("_T")


class FlashRequest(Frozen):
    """What was asked. `None` means whatever suits the checkpoint, a seed of -1 any."""

    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1, max_length=MAX_PROMPTS)]
    negative_prompt: NegativePrompt = ""
    """Of the baseline alone: where guidance is off, it has no effect."""
    checkpoint: CheckpointId | None = None
    accelerator: AcceleratorId | None = None
    decoder: DecoderId = "half"
    """Of few steps; the baseline has the model's own."""
    steps: Annotated[tuple[Steps, ...], Field(min_length=1, max_length=MAX_COUNTS)] = (2, 4, 8)
    has_baseline: bool = True
    baseline_steps: Steps = 30
    baseline_guidance: GuidanceScale | None = None
    baseline_scheduler: SchedulerId | None = None
    width: Width | None = None
    height: Height | None = None
    seed: Annotated[int, Field(ge=RANDOM_SEED, le=MAX_SEED)] = RANDOM_SEED
    num_images: Annotated[int, Field(ge=1, le=MAX_SEEDS)] = 2
    """Seeds for each prompt, counted up from the first."""


class Column(Frozen):
    """One way of drawing: a recipe whose prompt and seed stand for all. `name` begins its files' names."""

    name: str
    recipe: ResolvedRequest
    is_baseline: bool = False

    @property
    def title(self) -> str:
        guidance = f", guidance {self.recipe.guidance_scale:g}" if self.recipe.uses_guidance else ""
        decoder = ", tiny decoder" if self.recipe.decoder == "tiny" else ""
        return f"{self.recipe.num_inference_steps} steps{guidance}{decoder}"

    @property
    def evaluations(self) -> int:
        """See `ResolvedRequest.evaluations`."""
        return self.recipe.evaluations


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One picture of a comparison. `index` counts all of them, `row` the pairs of prompt and seed."""

    index: int
    row: int
    column: Column
    recipe: ResolvedRequest


class Comparison(Frozen):
    """The columns, and what each of them draws: every prompt with every seed."""

    columns: tuple[Column, ...]
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]

    @property
    def baseline(self) -> Column | None:
        return next((column for column in self.columns if column.is_baseline), None)

    def by_column(self, pictures: Mapping[int, _T]) -> dict[str, dict[int, _T]]:
        """`pictures`, which are by the index of their cell, by the name of their column and by row."""
        placed: dict[str, dict[int, _T]] = {column.name: {} for column in self.columns}
        for cell in self.cells():
            if cell.index in pictures:
                placed[cell.column.name][cell.row] = pictures[cell.index]
        return placed

    def cells(self) -> tuple[Cell, ...]:
        """In the order of drawing: column after column for one prompt and seed, so that all meet the machine in the
        same moods."""
        rows = [(prompt, seed) for prompt in self.prompts for seed in self.seeds]
        width = len(self.columns)
        return tuple(
            Cell(
                index=row * width + place,
                row=row,
                column=column,
                recipe=column.recipe.model_copy(update={"prompt": prompt, "seed": seed, "num_images": 1}),
            )
            for row, (prompt, seed) in enumerate(rows)
            for place, column in enumerate(self.columns)
        )


def parse_flash(values: Mapping[str, Any]) -> FlashRequest:
    """Build a request from loose values such as a form's or a command line's.

    Raises:
        InvalidRequest: naming the first field that is wrong.
    """
    try:
        return FlashRequest.model_validate(dict(values))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden":
            known = ", ".join(FlashRequest.model_fields)
            raise InvalidRequest(f"There is no setting called {field!r}.", f"Known settings: {known}.", field) from None
        if field == "prompts":
            raise _bad_prompts(values.get("prompts") or ()) from None
        if field in ("steps", "baseline_steps"):
            raise InvalidRequest(
                f"Steps are {values.get(field)!r}; they must be whole numbers from 1 to 150.", "", field
            ) from None
        raise invalid_request(error) from None


def resolve_flash(request: FlashRequest, catalogue: Catalogue) -> Comparison:
    """Decide everything that was left open.

    Raises:
        InvalidRequest: there is no accelerator for the checkpoint, or values do not fit it.
    """
    checkpoint = catalogue.checkpoint(request.checkpoint or catalogue.default_checkpoint)
    accelerator = _accelerator(request.accelerator, checkpoint, catalogue)
    seed = secrets.randbelow(MAX_SEED + 1) if request.seed == RANDOM_SEED else request.seed
    common: dict[str, Any] = {
        "prompt": request.prompts[0],
        "checkpoint": checkpoint.id,
        "width": request.width,
        "height": request.height,
        "seed": seed,
    }
    columns: list[Column] = []
    if request.has_baseline:
        asked = GenerationRequest(
            **common,
            negative_prompt=request.negative_prompt,
            num_inference_steps=request.baseline_steps,
            guidance_scale=request.baseline_guidance,
            scheduler=request.baseline_scheduler,
        )
        columns.append(Column(name="baseline", recipe=catalogue.resolve(asked), is_baseline=True))
    for steps in sorted(set(request.steps)):
        asked = GenerationRequest(
            **common, accelerator=accelerator.id, num_inference_steps=steps, decoder=request.decoder
        )
        columns.append(Column(name=f"s{steps}", recipe=catalogue.resolve(asked)))
    seeds = tuple((seed + index) % (MAX_SEED + 1) for index in range(request.num_images))
    return Comparison(columns=tuple(columns), prompts=request.prompts, seeds=seeds)


def _accelerator(accelerator_id: str | None, checkpoint: Checkpoint, catalogue: Catalogue) -> Accelerator:
    fitting = catalogue.accelerators_for(checkpoint)
    if not fitting:
        able = [row.title for row in catalogue.checkpoints if catalogue.accelerators_for(row)]
        raise InvalidRequest(
            f"There is no accelerator for {checkpoint.title} yet.",
            f"There are some for {', '.join(able)}.",
            "checkpoint",
        )
    if accelerator_id in (None, NO_ACCELERATOR):
        return fitting[0]
    probe = GenerationRequest(prompt="x", checkpoint=checkpoint.id, accelerator=accelerator_id)
    row = catalogue.accelerator(catalogue.resolve(probe).accelerator)
    assert row is not None
    return row


def _bad_prompts(prompts: object) -> InvalidRequest:
    if not isinstance(prompts, list | tuple):
        message, hint = f"The prompts are {reprlib.repr(prompts)}; they must be a list.", "Put them into one."
    elif not prompts:
        message, hint = "There is no prompt.", "Write what the pictures should show."
    elif (count := len(cast(Sequence[object], prompts))) > MAX_PROMPTS:
        message, hint = f"There are {count} prompts; at most {MAX_PROMPTS} fit.", "Leave some out."
    else:
        message, hint = "A prompt is empty, or longer than 10,000 characters.", "Change it or leave it out."
    return InvalidRequest(message, hint, "prompts")
