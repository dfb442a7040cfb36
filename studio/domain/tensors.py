"""What a safetensors file says of itself, read with nothing but its header: no tensor, no code, no more than a few MB.

The format is a length (8 bytes, little-endian), a JSON header of that length, and the tensors' bytes.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.domain.errors import CorruptModel

MAX_HEADER_BYTES = 8_000_000
"""SDXL's header takes 0.3 MB. A file may claim far more, to fill the memory of who parses it."""
MAX_TENSORS = 20_000
_LENGTH_BYTES = 8
_ITEM_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_HINT = "Fetch or copy the file again; only .safetensors weights are loaded."


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One tensor: `dtype` as the file spells it ("F16"), its shape, and where its bytes are, from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class TensorHeader:
    """Every tensor of a file by name, and the file's free texts."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor, or None where there is none of that name."""
        found = self.tensors.get(name)
        return found.shape if found else None


def read_header(path: Path) -> TensorHeader:
    """Read and check the header of a safetensors file: every byte of the file belongs to exactly one tensor.

    Raises:
        CorruptModel: the file is no safetensors file, is cut short or padded, or its header cannot be true.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LENGTH_BYTES)
        length = struct.unpack("<Q", start)[0] if len(start) == _LENGTH_BYTES else 0
        if not 2 <= length <= size - _LENGTH_BYTES:
            raise CorruptModel(f"{path.name} is no .safetensors file, or only a part of one.", _HINT)
        if length > MAX_HEADER_BYTES:
            raise CorruptModel(f"{path.name} has a header of {length / 1e6:.0f} MB; at most 8 MB are read.", _HINT)
        text = file.read(length)
    return _parse(text, path.name, _LENGTH_BYTES + length, size)


def header_bytes(header: TensorHeader, metadata: Mapping[str, str]) -> bytes:
    """The beginning of a file with the tensors of `header`, in order of their bytes, and other free texts."""
    tensors = sorted(header.tensors.items(), key=lambda item: item[1].begin)
    start = min((info.begin for _, info in tensors), default=0)
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, info in tensors:
        offsets = [info.begin - start, info.end - start]
        entries[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": offsets}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _parse(text: bytes, name: str, begin: int, end: int) -> TensorHeader:
    try:
        entries = json.loads(text, object_pairs_hook=_unique)
        metadata = entries.pop("__metadata__", {})
        if len(entries) > MAX_TENSORS:
            raise CorruptModel(f"{name} lists {len(entries):,} tensors; at most {MAX_TENSORS:,} are read.", _HINT)
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata that are not texts")
        tensors = {key: _tensor(entry, begin) for key, entry in entries.items()}
        _check_layout(tensors, begin, end)
    except RecursionError:
        raise CorruptModel(f"The header of {name} is nested too deeply to be read.", _HINT) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptModel(f"The header of {name} does not fit the file: {error}.", _HINT) from error
    return TensorHeader(tensors=tensors, metadata=metadata)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def _tensor(entry: dict[str, Any], start: int) -> TensorInfo:
    first, last = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
        raise ValueError("a shape or an offset is no whole number")
    if math.prod(shape) * _ITEM_BITS[entry["dtype"]] != (last - first) * 8:
        raise ValueError("a tensor is longer or shorter than its shape says")
    return TensorInfo(dtype=entry["dtype"], shape=shape, begin=start + first, end=start + last)


def _check_layout(tensors: Mapping[str, TensorInfo], begin: int, end: int) -> None:
    at = begin
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != at:
            raise ValueError("tensors overlap or leave gaps")
        at = tensor.end
    if at != end:
        raise ValueError(f"{abs(end - at):,} bytes {'too many' if at < end else 'are missing'}")
