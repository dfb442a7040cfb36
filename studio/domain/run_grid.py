"""A grid over the checkpoints of a training run: what a person asks for, and the pictures that it comes to."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, ValidationError

from studio.domain.errors import InvalidRequest
from studio.domain.prompt_syntax import plain_words
from studio.domain.request import (
    MAX_SEED,
    Frozen,
    GuidanceScale,
    Prompt,
    ResolvedRequest,
    SchedulerId,
    Seed,
    Steps,
    invalid_request,
)
from studio.domain.tags import AdapterUse, LoraScale

MAX_PROMPTS, MAX_SEEDS, MAX_SCALES = 50, 64, 8
MAX_PICTURES = 4000
STANDARD_SCALES = (0.5, 1.0)
MAX_ORDINARY, STANDARD_ORDINARY = 64, 16


class GridRequest(Frozen):
    """What was asked of the run of id `run`. `None` means all checkpoints that it kept, the prompts that it drew
    samples of, and whatever suits its model. The first seed is a fixed one: what was drawn is not drawn again."""

    run: str
    steps_of_run: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    """Those whose checkpoints are compared."""
    scales: Annotated[tuple[LoraScale, ...], Field(min_length=1, max_length=MAX_SCALES)] = STANDARD_SCALES
    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1, max_length=MAX_PROMPTS)] | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: GuidanceScale | None = None
    scheduler: SchedulerId | None = None
    seed: Seed = 0
    num_images: Annotated[int, Field(ge=1, le=MAX_SEEDS)] = 4
    """Seeds for each prompt, counted up from the first."""
    num_ordinary: Annotated[int, Field(ge=0, le=MAX_ORDINARY)] = STANDARD_ORDINARY
    """Prompts that do not call what was learnt, with one seed each: what the model knew should stay."""


class GridColumn(Frozen):
    """One adapter at one scale; `use` of None is the model without any."""

    step: int = 0
    use: AdapterUse | None = None

    @property
    def name(self) -> str:
        """What begins its files' names."""
        return f"step-{self.step:06d}-x{self.use.lora_scale:g}" if self.use else "without"

    @property
    def title(self) -> str:
        return f"Step {self.step} at scale {self.use.lora_scale:g}" if self.use else "Without it"


@dataclass(frozen=True, kw_only=True)
class GridCell:
    """One picture. `index` counts all of them in the order of drawing, `row` the pairs of prompt and seed."""

    index: int
    row: int
    column: GridColumn
    recipe: ResolvedRequest

    @property
    def text(self) -> str:
        """What it is to show."""
        return plain_words(self.recipe.prompt)


class Grid(Frozen):
    """The columns, the one without an adapter first, and what each draws: every prompt with every seed. `recipe` holds
    what is common to all."""

    run: str
    recipe: ResolvedRequest
    columns: tuple[GridColumn, ...]
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    ordinary: tuple[Prompt, ...] = ()

    @cached_property
    def rows(self) -> tuple[tuple[str, int], ...]:
        """The pairs of prompt and seed: every prompt with all seeds, then every ordinary one with the first."""
        asked = [(prompt, seed) for prompt in self.prompts for seed in self.seeds]
        return (*asked, *((prompt, self.seeds[0]) for prompt in self.ordinary))

    def is_ordinary(self, row: int) -> bool:
        """Whether the prompt of that row does not call what was learnt."""
        return row >= len(self.prompts) * len(self.seeds)

    def cells(self) -> tuple[GridCell, ...]:
        """In the order of drawing: prompt after prompt, so that what is there at any moment compares all columns; and
        within one adapter after the other, so that each is made ready once for all seeds."""
        asked = len(self.prompts) * len(self.seeds)
        together = [range(first, first + len(self.seeds)) for first in range(0, asked, len(self.seeds))]
        together += [range(asked, len(self.rows))] if self.ordinary else []
        places = [(row, column) for rows in together for column in self.columns for row in rows]
        return tuple(
            GridCell(index=index, row=row, column=column, recipe=self._recipe(row, column))
            for index, (row, column) in enumerate(places)
        )

    def _recipe(self, row: int, column: GridColumn) -> ResolvedRequest:
        prompt, seed = self.rows[row]
        text = f"{prompt} {column.use.tag}" if column.use else prompt
        return self.recipe.model_copy(update={"prompt": text, "seed": seed, "num_images": 1})


def parse_grid(values: Mapping[str, Any]) -> GridRequest:
    """Build a request from loose values such as a form's or a command line's.

    Raises:
        InvalidRequest: naming the first field that is wrong.
    """
    try:
        return GridRequest.model_validate(dict(values))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = str(problem["loc"][0]) if problem["loc"] else ""
        if field in _WRONG:
            message, hint = _WRONG[field]
            raise InvalidRequest(message, hint, field) from None
        raise invalid_request(error) from None


_WRONG = {
    "prompts": ("There is no prompt, or one is empty.", f"Give 1 to {MAX_PROMPTS}."),
    "steps_of_run": ("No checkpoint is chosen, or what is given is no step.", "Choose one or more."),
    "scales": (
        "No scale is chosen, or one is no number from -4 to 4.",
        f"Give 1 to {MAX_SCALES}, such as 0.5 and 1; 1 is the adapter as it was trained.",
    ),
    "num_images": (f"The number of pictures of each prompt must be from 1 to {MAX_SEEDS}.", ""),
    "num_ordinary": (f"The number of ordinary prompts must be from 0 to {MAX_ORDINARY}.", ""),
}


def plain_prompt(prompt: str) -> str:
    """A prompt that reads the same with a tag behind it as without one, to the letter."""
    return " ".join(prompt.split()).strip(" ,")


def seeds_from(seed: int, count: int) -> tuple[int, ...]:
    """`count` seeds, counted up from the first, wrapping at 2³²."""
    return tuple((seed + index) % (MAX_SEED + 1) for index in range(count))
