"""Weights that lie in a file and are read from there as they are used: for machines with less memory than a checkpoint.

The file is mapped into memory, so the system reads pages that are asked for and drops them again when memory is short.
It holds the very numbers that the module would have in memory, in their memory format, and is written once.
"""

import json
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from filelock import FileLock
from torch import Tensor, nn

from engines.memory import release_memory
from studio.domain.errors import StorageFailed
from studio.domain.memory import gigabytes
from studio.domain.tensors import read_header

_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_CHANNELS_LAST = (0, 2, 3, 1)
_CHANNELS_FIRST = (0, 3, 1, 2)


def map_weights(module: nn.Module, path: Path) -> None:
    """Put the weights of `module` into the file at `path`, unless they are there already, and let it read them there.

    Raises:
        StorageFailed: the disk is too full for it, or cannot be written to.
    """
    parameters = dict(module.named_parameters())  # buffers are small, and some are not part of the weights
    _written(parameters, path)
    for name, tensor in _mapped(path):
        parameters[name].data = tensor


def open_mapped(part_class: Any, folder: Path, dtype: torch.dtype, path: Path) -> Any:
    """A part of a diffusers folder with its weights mapped from `path`. Where they are there already, nothing is read;
    else the part is in memory once, to be written.

    Raises:
        StorageFailed: as `map_weights`.
    """
    if path.exists() and issubclass(part_class, ModelMixin):  # those have no buffers of their own
        with torch.device("meta"):
            part = part_class.from_config(part_class.load_config(folder))
        part.load_state_dict(dict(_mapped(path)), assign=True)
        return part.eval().requires_grad_(False)
    part = part_class.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    part.to(memory_format=torch.channels_last)
    map_weights(part, path)
    release_memory()
    return part


def write_weights(tensors: dict[str, Tensor], path: Path) -> None:
    """Write `tensors` to a safetensors file, kernels channels-last, one at a time and atomically.

    Raises:
        StorageFailed: as `map_weights`.
    """
    turned = {
        name: (tensor.permute(_CHANNELS_LAST) if tensor.ndim == 4 else tensor).detach()
        for name, tensor in tensors.items()
    }
    needed = sum(tensor.nbytes for tensor in turned.values())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if free < needed:
            raise StorageFailed(
                f"Weights that do not fit into memory take {gigabytes(needed)} of disk, and {gigabytes(free)} is free.",
                "Free some space, or choose a smaller model.",
            )
        _write(turned, path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _written(parameters: dict[str, Tensor], path: Path) -> None:
    """Have the file there: written by one process, where several need it at once."""
    if path.exists():
        return
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock:
            if not path.exists():
                write_weights(parameters, path)
        os.unlink(lock.lock_file)  # who waits for it finds the file there
    except FileNotFoundError:
        pass  # another one has unlinked it
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"{path.parent} cannot be written to: {error.strerror}.", "Check the disk.")


def _mapped(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Not with the reader of safetensors 0.8.0: that keeps a few numbers of each tensor for good, 0.03 MB each time
    that a pocket model is opened."""
    content = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    for name, info in read_header(path).tensors.items():
        tensor = content[info.begin : info.end].view(_DTYPES[info.dtype]).view(info.shape)
        yield name, tensor.permute(_CHANNELS_FIRST) if tensor.ndim == 4 else tensor


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        header = json.dumps(_header(tensors)).encode()
        header += b" " * (-len(header) % 8)  # the tensors begin where processors like to read them
        file.write(struct.pack("<Q", len(header)) + header)
        for tensor in tensors.values():
            file.write(memoryview(tensor.contiguous().flatten().view(torch.uint8).numpy()))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _header(tensors: dict[str, Tensor]) -> dict[str, Any]:
    header, begin = {}, 0
    for name, tensor in tensors.items():
        end = begin + tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": [begin, end]}
        begin = end
    return header
