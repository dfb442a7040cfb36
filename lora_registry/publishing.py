"""An adapter as others want it: in both layouts, without what its file tells of the machine where it was made."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PureWindowsPath

import torch

from lora_registry.export import write_adapter
from lora_registry.files import write_whole
from lora_registry.formats import AdapterFile, read_adapter
from lora_registry.merging import LowRanks, plain
from lora_registry.modules import dotted
from lora_registry.unfitted import load_unfitted
from lora_registry.weights import LowRank
from studio.domain.adapter import FamilyId, Layout
from studio.domain.merging import MERGE_KEY
from studio.domain.tensors import header_bytes, read_header

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
"""What `load_lora_weights` of diffusers looks for in a repository."""
_OPEN_KEYS = frozenset(
    {"ss_base_model_version", "ss_output_name", "ss_resolution", "ss_v2", "ss_steps", "ss_max_train_steps",
     "ss_num_train_images", "ss_sd_model_name", "sshs_model_hash", "sshs_legacy_hash", "lora_adapter_metadata",
     "format", MERGE_KEY}
)  # fmt: skip
_OPEN_STARTS = ("modelspec.", "ss_network_")
"""What metadata may be told to anybody. Others name folders of the machine, or hold captions."""
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}
_BLOCK_BYTES = 1 << 20


def write_layouts(source: Path, folder: Path, name: str) -> tuple[str, ...]:
    """Write the adapter at `source` to `folder`: as `NAME.safetensors` in kohya's layout and as `DIFFUSERS_FILE` in
    that of diffusers; of the two the one that it has, only, where it is no LoRA or LoCon. Gives the names of the files.

    Raises:
        CorruptModel, Incompatible: it is damaged, or no adapter that can be used.
        StorageFailed: the folder cannot be written.
    """
    file = read_adapter(source)
    own = f"{name}.safetensors" if file.layout == "kohya" else DIFFUSERS_FILE
    metadata = open_metadata(file.metadata)
    write_whole(folder / own, _copied(source, metadata))
    changes = _factors(file)
    if changes is None:
        return (own,)
    other: Layout = "peft" if file.layout == "kohya" else "kohya"
    called = DIFFUSERS_FILE if other == "peft" else f"{name}.safetensors"
    metadata.pop("lora_adapter_metadata", None)  # it would contradict the alphas of kohya's layout
    first = next(iter(read_header(source).tensors.values()))
    naming: FamilyId = "sdxl" if "text_encoder_2" in changes else "sd15"
    write_adapter(folder / called, changes, naming, other, metadata, _DTYPES.get(first.dtype, torch.float16))
    return (own, called)


def open_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """What of an adapter's metadata anybody may read."""
    told = {key: text for key, text in metadata.items() if key in _OPEN_KEYS or key.startswith(_OPEN_STARTS)}
    if model := told.get("ss_sd_model_name"):
        told["ss_sd_model_name"] = PureWindowsPath(model).name
    return told


def _factors(file: AdapterFile) -> LowRanks | None:
    """Its changes under diffusers' names; None where one is something else than a pair of factors."""
    made: LowRanks = {}
    for part, changes in load_unfitted(file).weights.items():
        for path, change in changes.items():
            if not isinstance(change, LowRank) or change.magnitude is not None:
                return None
            name = dotted(path)
            if part == "text_encoder":  # in which transformers (5.6) has no text_model; settings must match its modules
                name = name.removeprefix("text_model.")
            made.setdefault(part, {})[name] = plain(change)
    return made


def _copied(source: Path, metadata: Mapping[str, str]) -> Iterator[bytes]:
    header = read_header(source)
    yield header_bytes(header, metadata)
    with source.open("rb") as file:
        file.seek(min(info.begin for info in header.tensors.values()))
        while block := file.read(_BLOCK_BYTES):
            yield block
