"""What our own API tells of jobs and pictures."""

from typing import Any, Literal

from pydantic import Field

from studio.domain.images import ImageRecord
from studio.domain.request import ResolvedRequest
from studio.domain.run_events import Looked, Trained
from studio.paired import Paired
from studio.statistics import Estimate, Spread
from studio.tables import JobState
from studio.web.own.answers import View
from studio.web.page_routes import picture_address


class ProgressView(View):
    """How far a job is: `step` of `total` of picture `image_index` of `num_images`, or of a training."""

    step: int
    total: int
    image_index: int
    num_images: int
    eta_s: float | None
    """What is left, in seconds, where that is known."""
    phase: str


class DownloadView(View):
    """How much of a model is here."""

    done_bytes: int
    total_bytes: int
    eta_s: float | None


class PictureLink(View):
    """A picture, and where it is."""

    id: str
    url: str
    """Of its PNG, on this server."""
    image_index: int
    seed: int
    prompt: str
    width: int
    height: int


class ProblemView(View):
    """Why a job failed, or does not go on."""

    message: str
    hint: str


class JobView(View):
    """A job as it stands."""

    id: str
    kind: str
    """generate, flash, evaluate, train or distil; what the page alone asks for has other words."""
    state: JobState
    ahead: int
    """How many jobs come before it; 0 once it runs."""
    wait_s: float | None
    """About how long until it begins, in seconds, where that is known."""
    progress: ProgressView | None
    download: DownloadView | None
    """While a model's weights are fetched."""
    held: ProblemView | None
    """Why a running job does not go on at this moment, such as a disk that is full; it does by itself when it can."""
    num_pictures: int
    pictures: list[PictureLink]
    """The first hundred; the result has all."""
    error: ProblemView | None
    created_at: float
    """Seconds since 1970."""
    ended_at: float | None


class JobList(View):
    """What waits or runs, oldest first."""

    jobs: list[JobView]


class PictureView(PictureLink):
    """A picture and all that is known of it."""

    job_id: str
    created_at: float
    """Seconds since 1970."""
    is_starred: bool
    recipe: ResolvedRequest
    """What makes this one picture again."""
    environment: dict[str, str]
    """Device, number format, versions, and the hash of the weights."""
    seconds: dict[str, float]
    """What it took, by phase."""
    peak_memory_mb: float
    pixels_sha256: str
    infotext: str
    """What programs of the A1111 family show."""


class PictureList(View):
    """Pictures, newest first; `total` counts those that fit, wherever they are."""

    pictures: list[PictureView]
    total: int
    limit: int
    offset: int


class ColumnView(View):
    """One way of drawing of a comparison, over its `n` pictures so far. Intervals are at 95 %; null: there is nothing
    to measure it by."""

    name: str
    title: str
    is_baseline: bool
    recipe: ResolvedRequest
    n: int
    seconds: dict[str, Spread]
    """By phase."""
    peak_memory_mb: float
    speed_up: Estimate | None
    likeness: Estimate | None
    """Structural similarity to the baseline's pictures."""
    right: Estimate | None
    """The share that the checker passes."""
    clip: Estimate | None
    clip_gain: Estimate | None


class ComparisonView(View):
    """Few steps beside many."""

    columns: list[ColumnView]
    judged_by: str
    archive_url: str
    """Of a zip file with all pictures."""


class SystemView(View):
    """One system of an evaluation, over `n` pictures; by measure (right, clip, second), with 95 % intervals."""

    name: str
    is_baseline: bool
    n: int
    failed: int
    means: dict[str, Estimate]
    skills: dict[str, Estimate]
    against: dict[str, Paired]
    """Compared with the baseline, prompt by prompt."""
    seconds: Spread | None


class EvaluationView(View):
    """What an evaluation says. The unit is the prompt: the pictures of one are averaged first."""

    headline: str
    disagreement: str
    baseline: str
    measure: str | None
    """What the verdict goes by."""
    num_prompts: int
    """That all systems have drawn."""
    table: list[SystemView]
    document: dict[str, Any]
    """The results.json, which the studio reads again."""
    report_url: str


class RunView(View):
    """A training run and what came of it."""

    id: str
    name: str
    checkpoint: str
    step: int
    total: int
    adapter_id: str
    """Of what came of it, an adapter or an accelerator; empty while nothing did."""
    best: Looked | None
    losses: list[Trained]
    """Its last words of how it goes."""
    adapter_url: str | None


class ResultView(View):
    """What came of a job that is over. Of one that failed or was cancelled, what was ready stays."""

    id: str
    kind: str
    state: Literal["done", "failed", "cancelled"]
    error: ProblemView | None
    pictures: list[PictureView]
    """Of all kinds but evaluate, whose pictures the document names."""
    comparison: ComparisonView | None = None
    evaluation: EvaluationView | None = None
    run: RunView | None = None
    summary: dict[str, Any] = Field(default_factory=dict)


def picture_link(record: ImageRecord) -> PictureLink:
    """Where `record` is."""
    return PictureLink.model_validate(link_fields(record))


def link_fields(record: ImageRecord) -> dict[str, Any]:
    """The fields of `PictureLink`."""
    width, height = record.recipe.final_size
    return {
        "id": record.id,
        "url": picture_address(record.id),
        "image_index": record.image_index,
        "seed": record.recipe.seed,
        "prompt": record.recipe.prompt,
        "width": width,
        "height": height,
    }
