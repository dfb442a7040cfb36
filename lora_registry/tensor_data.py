"""Numbers read straight from a safetensors file, one tensor at a time, without torch."""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from studio.domain.errors import CorruptModel
from studio.domain.tensors import TensorHeader, TensorInfo

FLOATS = ("F64", "F32", "F16", "BF16")
"""The types that weights may have."""
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}
_BLOCK_BYTES = 1 << 20


class TensorReader:
    """An open safetensors file. Plain reads: a mapped file that another program cuts short would kill the process."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._file = path.open("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def numbers(self, tensor: TensorInfo) -> NDArray[Any]:
        """The tensor's numbers in one row; bfloat16, which numpy lacks, as float32."""
        self._file.seek(tensor.begin)
        raw = self._file.read(tensor.end - tensor.begin)
        if len(raw) != tensor.end - tensor.begin:
            raise CorruptModel(f"{self._name} became shorter while it was read.", "Copy it again, then try again.")
        if tensor.dtype == "BF16":
            return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        return np.frombuffer(raw, _NUMPY[tensor.dtype])

    def scalar(self, tensor: TensorInfo) -> float:
        """The only number of a tensor such as alpha, which some trainers write as an integer.

        Raises:
            CorruptModel: there are several, or they are of a type that no trainer writes.
        """
        if tensor.dtype not in (*_NUMPY, "BF16") or np.prod(tensor.shape) != 1:
            shape = "×".join(map(str, tensor.shape))
            raise CorruptModel(
                f"{self._name} has an alpha of type {tensor.dtype}{shape and f' and shape {shape}'}; "
                "it must be one number.",
                "Fetch or export the file again.",
            )
        return float(self.numbers(tensor)[0])


def tensor_sha256(path: Path, header: TensorHeader) -> str:
    """SHA-256 of everything after the header: what stays the same when metadata are edited."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(min((tensor.begin for tensor in header.tensors.values()), default=0))
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
