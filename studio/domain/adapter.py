"""An adapter: a small file that changes a checkpoint's weights (a LoRA), what it says of itself and where it fits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from studio.domain.catalogue import PredictionType

FamilyId = Literal["sd15", "sd21", "sdxl"]
Layout = Literal["kohya", "diffusers", "peft"]
"""How a file names its tensors; the same adapter can be written in each."""
Algorithm = Literal["lora", "locon", "dora", "loha", "lokr", "full", "norm", "ia3", "oft", "glora", "bias"]
Part = Literal["unet", "text_encoder", "text_encoder_2"]

PARTS: tuple[Part, ...] = ("unet", "text_encoder", "text_encoder_2")
FAMILY_TITLES: Mapping[FamilyId, str] = {
    "sd15": "SD 1.5",
    "sd21": "SD 2.1",
    "sdxl": "SDXL",
}
"""As the catalogue calls them; a file's family is told without one."""

MAX_LORA_SCALE = 4.0
Word = Annotated[str, Field(min_length=1, max_length=100)]


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What a file says of itself, read off the names and shapes of its tensors.

    `family` is None where neither shapes nor metadata decide it. `ranks` and `alphas` are the different ones that
    occur, in rising order; no alphas means that the file states none. `metadata` are texts of whoever made the file,
    cut to a length that can be shown. `tensor_sha256` is over the bytes after the header, so it stays the same when
    the metadata are edited; None until it was worked out. `notes` is what is odd about it without being an obstacle.
    """

    id: str
    title: str
    file_name: str
    size_bytes: int
    layout: Layout
    algorithm: Algorithm
    parts: tuple[Part, ...]
    family: FamilyId | None
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    module_count: int
    trigger_words: tuple[str, ...]
    metadata: Mapping[str, str]
    base_model: str | None
    prediction_type: PredictionType | None
    notes: tuple[str, ...] = ()
    tensor_sha256: str | None = None

    @property
    def short_hash(self) -> str | None:
        """AutoV3: what A1111-family tools write into pictures under `Lora hashes`."""
        return self.tensor_sha256 and self.tensor_sha256[:12]


def stated_base(family: FamilyId, *, is_v: bool) -> dict[str, str]:
    """How files say what they were made for, in the words of kohya's scripts and of ModelSpec 1.0.1; `is_v`: an SD 2.1
    that predicts velocity."""
    versions = {"sd15": "sd_v1", "sd21": "sd_v2_v" if is_v else "sd_v2", "sdxl": "sdxl_base_v1-0"}
    models = {
        "sd15": "stable-diffusion-v1",
        "sd21": "stable-diffusion-v2-768-v" if is_v else "stable-diffusion-v2-512",
        "sdxl": "stable-diffusion-xl-v1-base",
    }
    return {
        "modelspec.architecture": f"{models[family]}/lora",
        "modelspec.implementation": (
            "https://github.com/Stability-AI/generative-models" if family == "sdxl" else "diffusers"
        ),
        "ss_base_model_version": versions[family],
    }


class AdapterCard(BaseModel):
    """What its owner keeps beside an adapter. `trigger_words` of None: take those that the file suggests."""

    # Other tools write a file of the same name; what they keep in it comes back out as it was.
    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    title: Annotated[str, Field(max_length=200)] | None = None
    notes: Annotated[str, Field(max_length=10_000)] = ""
    trigger_words: Annotated[tuple[Word, ...], Field(max_length=50)] | None = None
    lora_scale: Annotated[float, Field(ge=-MAX_LORA_SCALE, le=MAX_LORA_SCALE)] = 1.0
    tensor_sha256: str | None = None
    """As it was when the adapter was added: a file that has changed since is told by it."""


@dataclass(frozen=True, kw_only=True)
class AdapterEntry:
    """A file of the store. Exactly one of `adapter` and `problem` says something."""

    id: str
    file_name: str
    adapter: Adapter | None = None
    problem: str = ""
    card: AdapterCard = field(default_factory=AdapterCard)
    has_preview: bool = False

    @property
    def title(self) -> str:
        return self.card.title or (self.adapter.title if self.adapter else self.id)

    @property
    def trigger_words(self) -> tuple[str, ...]:
        """The owner's, else those that the file suggests."""
        if self.card.trigger_words is not None:
            return self.card.trigger_words
        return self.adapter.trigger_words if self.adapter else ()


@dataclass(frozen=True, kw_only=True)
class AdapterTarget:
    """A checkpoint as adapters see it: for each part, the shape of the weight of every linear layer and convolution
    by its module's diffusers path ("down_blocks.1.attentions.0.proj_in" → (320, 320, 1, 1))."""

    title: str
    family: FamilyId
    modules: Mapping[Part, Mapping[str, tuple[int, ...]]]
    prediction_type: PredictionType = "epsilon"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether an adapter can be used with a checkpoint: `message` says why not, `hint` what to do instead; both are
    empty when it can. `notes` is what its user should know either way."""

    message: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_ok(self) -> bool:
        return not self.message
