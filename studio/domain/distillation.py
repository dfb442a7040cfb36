"""Distilling an accelerator: what a person asks for, and the fully decided run that comes of it."""

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.hub import is_hub_id
from studio.domain.request import Frozen, short_name
from studio.domain.timesteps import Grid

ObjectiveId = Literal["lcm", "own_path", "flash"]
Reach = Literal["attention", "attention_and_feed_forward", "all"]
Source = Literal["scenes", "folder", "captions", "hub"]
"""What the student sees noised: scenes of the pocket world, pictures of one's own, the teacher's own pictures, or those
of a data set of the Hugging Face hub."""

FEW_STEPS = (2, 4, 8)
"""Numbers of steps that a distilled adapter is made for, and is looked at with."""
GRIDS: Mapping[ObjectiveId, Grid] = {"lcm": "lcm", "own_path": "lcm", "flash": "trailing"}
"""Where the timesteps lie that an objective trains."""
OBJECTIVE_TITLES: Mapping[ObjectiveId, str] = {"own_path": "LCM, then its own path", "lcm": "LCM", "flash": "Flash"}
MAX_CAPTIONS = 100_000
_POCKET_MATCHING = 0.3
"""Measured with the pocket models (docs/benchmarks.md); nobody has with large ones."""
_POCKET_PICTURES, _LARGE_PICTURES = 4000, 1000
_SOURCES = {"folder": "a folder of pictures", "dataset": "a data set of the hub", "captions": "captions"}
"""Fields of the request that exclude each other, in words."""


def _hub_id(text: str) -> str:
    if text and not is_hub_id(text):
        raise ValueError("no id of the hub")
    return text


Name = Annotated[
    str,
    Field(
        min_length=1, max_length=80, pattern=r"\S", title="Name", description="What the accelerator is called in lists."
    ),
]
Objective = Annotated[
    ObjectiveId,
    Field(
        title="How it is taught — objective",
        description="Its own path: after LCM it practises mending what its first steps get wrong, which makes 2 and 4 "
        "steps good and takes twice the time a step. Flash follows the teacher to its end from noised pictures.",
    ),
]
Guidance = Annotated[
    float,
    Field(
        ge=1.0,
        le=30.0,
        title="How closely it will follow the prompt — the teacher's guidance scale",
        description="Learnt for good: without guidance it draws as the model does with this much.",
        json_schema_extra={"step": 0.5},
    ),
]
NumSteps = Annotated[
    int,
    Field(
        ge=10,
        le=100_000,
        title="How long to train — steps",
        description="Each is one change of the adapter. Stopped earlier, the best that there is is kept.",
    ),
]
BatchSize = Annotated[
    int, Field(ge=1, le=256, title="Pictures a step — batch size", description="More learn steadier and take longer.")
]
Rank = Annotated[
    int,
    Field(ge=1, le=256, title="How much it can learn — rank", description="Its file grows with it."),
]
LearningRate = Annotated[
    float,
    Field(gt=0, le=0.1, title="How fast it learns — learning rate", description="Too fast, and pictures fall apart."),
]
HubDataset = Annotated[
    str,
    AfterValidator(_hub_id),
    Field(
        title="A data set of the Hugging Face hub",
        description="Its id, owner/name: the first so many of its pictures and captions.",
    ),
]
Matching = Annotated[
    float,
    Field(
        ge=0,
        le=10,
        title="How strongly it is drawn to likely pictures — distribution matching",
        description="A second loss on its own path: 2 steps get better, training takes a fifth longer. 0 is without.",
    ),
]
LookEvery = Annotated[
    int,
    Field(
        ge=5,
        le=10_000,
        title="Look every … steps",
        description="Draws samples in few steps, measures them, and keeps the best so far.",
    ),
]


class DistillationRequest(Frozen):
    """What was asked. `None` means whatever suits the checkpoint. Without `folder`, `dataset` and `captions` a pocket
    model is taught on scenes that the studio draws; any other needs one of them."""

    name: Name
    checkpoint: str | None = None
    objective: Objective = "own_path"
    folder: Annotated[str, Field(max_length=4000)] = ""
    dataset: HubDataset = ""
    captions: Annotated[tuple[str, ...], Field(max_length=MAX_CAPTIONS)] = ()
    num_pictures: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    guidance_scale: Guidance | None = None
    num_steps: NumSteps | None = None
    batch_size: BatchSize | None = None
    rank: Rank | None = None
    reach: Reach = "all"
    learning_rate: LearningRate | None = None
    distribution_matching: Matching | None = None
    look_every: LookEvery | None = None
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0


class DistillationPlan(Frozen):
    """Everything decided: what a run trains, on what, how long."""

    kind: Literal["distil"] = "distil"
    name: Name
    checkpoint: str
    objective: Objective
    source: Source
    folder: str
    dataset: HubDataset = ""
    captions: tuple[str, ...]
    num_pictures: int
    """Of scenes, of the teacher's own, or the first of a data set of the hub; a folder counts for itself."""
    size: int
    """Width and height in pixels."""
    guidance_scale: Guidance
    num_steps: NumSteps
    batch_size: BatchSize
    rank: Rank
    reach: Reach
    learning_rate: LearningRate
    distribution_matching: Matching = 0.0
    """Plans that are older than this term say nothing of it."""
    look_every: LookEvery
    seed: int


def parse_distillation(values: Mapping[str, Any]) -> DistillationRequest:
    """Build a request from loose values such as a form's or a command line's.

    Raises:
        InvalidRequest: naming the first field that is wrong.
    """
    try:
        return DistillationRequest.model_validate(dict(values))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = str(problem["loc"][0]) if problem["loc"] else ""
        if field == "name":
            raise InvalidRequest(
                "The accelerator has no name, or one of more than 80 characters.", "Give it a short one.", "name"
            ) from None
        if field == "dataset":
            raise InvalidRequest(
                f"{reprlib.repr(values.get(field))} is no id of a data set on the Hugging Face hub.",
                "Give it as its page does: owner/name.",
                field,
            ) from None
        raise InvalidRequest(
            f"{label(field)} is {reprlib.repr(values.get(field))}, which does not work: {problem['msg'].lower()}.",
            "",
            field,
        ) from None


def resolve_distillation(request: DistillationRequest, catalogue: Catalogue) -> DistillationPlan:
    """Decide everything that was left open.

    Raises:
        InvalidRequest: a checkpoint that is not in the catalogue, or nothing to teach it on.
    """
    given = [(field, what) for field, what in _SOURCES.items() if getattr(request, field)]
    if len(given) > 1:
        raise InvalidRequest(
            f"Both {given[0][1]} and {given[1][1]} are given.",
            "Give one: pictures bring their own captions.",
            given[1][0],
        )
    try:
        checkpoint = catalogue.checkpoint(request.checkpoint or catalogue.default_checkpoint)
    except NotFound as error:
        raise InvalidRequest(error.message, error.hint, "checkpoint") from None
    captions = tuple(caption.strip() for caption in request.captions if caption.strip())
    values = usual(checkpoint, request.objective)
    values |= request.model_dump(exclude_none=True, exclude={"checkpoint", "captions"})
    return DistillationPlan.model_validate(
        {
            "look_every": look_every(values["num_steps"]),
            **values,
            "checkpoint": checkpoint.id,
            "source": _source(request, captions, checkpoint),
            "captions": captions,
        }
    )


def look_every(num_steps: int) -> int:
    """How often to look at a training of so many steps: some eight times."""
    return max(5, min(500, num_steps // 8))


def label(field: str) -> str:
    """The short name of a field as people say it."""
    return short_name(DistillationPlan, field)


def _source(request: DistillationRequest, captions: tuple[str, ...], checkpoint: Checkpoint) -> Source:
    if request.folder:
        return "folder"
    if request.dataset:
        return "hub"
    if captions:
        return "captions"
    if checkpoint.is_pocket:
        return "scenes"
    raise InvalidRequest(
        f"There is nothing to teach {checkpoint.title} on.",
        "Give a folder of pictures with captions, a data set of the hub, or captions alone: the model then learns from "
        "its own pictures.",
        "folder",
    )


def usual(checkpoint: Checkpoint, objective: ObjectiveId = "own_path") -> dict[str, Any]:
    """What is taken where nothing else is asked. Miniatures learn at rates that large models would not survive; those
    of large ones are the papers'."""
    large = {
        "num_pictures": _LARGE_PICTURES,
        "num_steps": 2000,
        "batch_size": 4,
        "rank": 64,
        "learning_rate": 5e-5 if objective == "flash" else 1e-4,
        "distribution_matching": 0.0,
    }
    pocket = {
        "num_pictures": _POCKET_PICTURES,
        "num_steps": 600,
        "batch_size": 32,
        "rank": 16,
        "learning_rate": 1e-3,
        "distribution_matching": _POCKET_MATCHING if objective == "own_path" else 0.0,
    }
    return {
        **(pocket if checkpoint.is_pocket else large),
        "size": checkpoint.native_size,
        "guidance_scale": max(1.0, checkpoint.default_guidance),
    }
