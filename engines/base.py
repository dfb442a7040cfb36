"""What an engine promises. Light to import: no torch here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from studio.domain.catalogue import Checkpoint
from studio.domain.memory import MemoryPlan
from studio.domain.request import ResolvedRequest
from studio.domain.scores import JudgeExam, Score
from studio.domain.tags import AdapterUse

OnFetch = Callable[[int, int], None]
"""Told while weights come from the hub: bytes that are here, and bytes in all."""


CHECKED = {"safety": "checked"}
"""What the environment of a picture says that a safety checker has let pass."""


def never() -> bool:
    """Whether to stop, for somebody who does not."""
    return False


def unheard(done_bytes: int, total_bytes: int) -> None:
    """The `OnFetch` of somebody who does not want to know."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Told after each step of the sampler's own count: `step` of `total` are done. `preview()` decodes the picture so
    far (128 px or so); call it only from inside the callback, and only when somebody looks. Of a batch, each picture is
    told of, by its `place` in it."""

    step: int
    total: int
    preview: Callable[[], Image.Image]
    place: int = 0


@dataclass(frozen=True, kw_only=True)
class Order:
    """A picture of a batch: its `single` recipe, and its texts as run, without tags: (prompt, negative prompt)."""

    request: ResolvedRequest
    prompts: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished image with what it cost: `seconds` by phase (`text`, `denoise`, `decode`, `total`) and the most memory
    in use while it was made, in MB (the GPU's where one computes, else the process's). `environment` names device,
    dtype, versions, checkpoint hash."""

    image: Image.Image
    seconds: dict[str, float]
    peak_memory_mb: float
    environment: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ChosenAdapter:
    """An adapter that a prompt names, and the file it is."""

    use: AdapterUse
    path: Path


@dataclass(frozen=True, kw_only=True)
class Steering:
    """What a picture keeps to: a ControlNet, in a file that goes with its UNet or a folder of diffusers, the RGB map
    that it reads, and how closely, [0, 2]."""

    path: Path
    hint: Image.Image
    scale: float


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a picture begins from instead of noise alone, as large as its recipe says: an RGB picture, and where it may
    change (mode L, white; black keeps every pixel; None: everywhere). And what it keeps to."""

    image: Image.Image | None = None
    mask: Image.Image | None = None
    steering: Steering | None = None


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """Where an engine computes, in which number format large models do, and the ids of the checkpoints in memory."""

    device: str
    dtype: str
    loaded: tuple[str, ...]


class Engine(Protocol):
    """Makes pictures. One engine holds the pipelines of one device; calls come from one worker thread."""

    def state(self) -> EngineState:
        """How things stand; from any thread, at once."""
        ...

    def free_bytes(self) -> int:
        """Memory of its device that another process could take now; from any thread."""
        ...

    def plan(self, request: ResolvedRequest) -> MemoryPlan:
        """How a picture of `request` would be made now and what memory that takes; from any thread, without loading.

        Raises:
            CorruptModel, NotFound: its checkpoint is damaged or gone.
        """
        ...

    def generate(
        self,
        request: ResolvedRequest,
        prompts: tuple[str, str],
        adapters: Sequence[ChosenAdapter] = (),
        *,
        timesteps: tuple[int, ...] | None = None,
        start: Start | None = None,
        cancelled: Callable[[], bool],
        on_step: Callable[[Step], None],
        on_fetch: OnFetch = unheard,
    ) -> Picture:
        """Make the one picture of a `single` recipe. `prompts` are the texts as run, without tags: (prompt, negative
        prompt); `adapters` are those that the recipe adds. `timesteps`, one for each of its steps, are where its
        sampler stops; None leaves them to it. `start` holds the pictures that the recipe names, if it names any.

        Raises:
            JobCancelled: within one step of `cancelled()` turning true, within a second while weights are fetched.
            GenerationFailed: values that are not finite, a picture of a single colour, or one that the safety checker
                takes for unfit to be shown.
            OutOfMemory: not even the lightest way of making it fits.
            NotFound, CorruptModel, DownloadFailed, StorageFailed: the checkpoint cannot be had.
            Incompatible: an adapter does not fit it.
        """
        ...

    def most_at_once(self, request: ResolvedRequest) -> int:
        """How many pictures like that of `request` are best made at once: 1 where each is to be exactly what it would
        be alone, or where memory is short. From any thread, without loading."""
        ...

    def generate_batch(
        self,
        orders: Sequence[Order],
        adapters: Sequence[ChosenAdapter] = (),
        *,
        timesteps: tuple[int, ...] | None = None,
        cancelled: Callable[[], bool],
        on_step: Callable[[Step], None],
        on_fetch: OnFetch = unheard,
    ) -> list[Picture]:
        """Make pictures that differ in their words and seeds alone at once, in order; none of them begins from a
        picture, keeps to one, or has a second pass. Each is what it would be alone but for rounding (1/255 or so), and
        says in its environment how many were made together.

        Raises:
            As `generate`; GenerationFailed also where their prompts have different numbers of chunks.
        """
        ...

    def preload(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint ahead of the first request."""
        ...

    def preload_judge(self, judge: Path) -> None:
        """Load the open_clip model in the folder `judge` ahead of the first score.

        Raises:
            NotFound, CorruptModel: it cannot be had.
        """
        ...

    def examine(self, judge: Path) -> JudgeExam:
        """Ask the open_clip model in the folder `judge` what it can tell on drawn scenes; takes seconds to minutes.

        Raises:
            NotFound, CorruptModel: see `score`.
        """
        ...

    def score(self, judge: Path, picture: Path, text: str) -> Score:
        """How well the picture in the file `picture` fits `text`, by the open_clip model in the folder `judge`.

        Raises:
            NotFound, CorruptModel: the judge, or the picture, cannot be had.
        """
        ...

    def score_texts(self, judge: Path, picture: Path, texts: Sequence[str]) -> tuple[Score, ...]:
        """The same for many texts, in their order. The picture is looked at once, and what was read is remembered.

        Raises:
            NotFound, CorruptModel: see `score`.
        """
        ...

    def embed(self, judge: Path, picture: Path) -> tuple[float, ...]:
        """What the judge in the folder `judge` makes of the picture in the file `picture`: a vector of length 1, whose
        scalar product with another picture's is their cosine.

        Raises:
            NotFound, CorruptModel: see `score`.
        """
        ...
