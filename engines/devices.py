"""Which device and number format to compute in, decided by what is here and, on CPUs, by a short measurement."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from studio.domain.errors import InvalidRequest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BF16_MARGIN = 1.5
"""How many times faster bf16 must be on a CPU before its rounding is worth it. CPUs either have fast bf16 matrix units
(3 to 8 times measured) or emulate them (0.5 times measured), so the choice does not waver between runs."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A torch device with the number format that large models use on it."""

    name: str
    dtype: torch.dtype


def choose_device(device: str = "auto", dtype: str = "auto") -> Device:
    """Pick the device and dtype; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        InvalidRequest: a name that is unknown or not available here.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    name = available[0] if device == "auto" else device
    if name not in available:
        raise InvalidRequest(f"Device {device!r} is not available here.", f"Available: auto, {', '.join(available)}.")
    if dtype == "auto":
        return Device(name=name, dtype=_automatic_dtype(name))
    if dtype not in DTYPES:
        raise InvalidRequest(f"Number format {dtype!r} is unknown.", f"Known: auto, {', '.join(DTYPES)}.")
    return Device(name=name, dtype=DTYPES[dtype])


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` CPU threads in this thread for a while; None leaves it as it is.

    The layers of a miniature are too small to share: a second core saves little when it is idle, and when
    anything else wants it, each of hundreds of joins per step waits for it (25 s instead of 1.4 for a picture, measured
    on two cores). One thread also makes the same bytes on machines of any size.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def in_float32(*modules: nn.Module) -> Iterator[None]:
    """Let modules compute in float32 for a while: it holds every number of half precision, so all bits come back."""
    before = [next(module.parameters()).dtype for module in modules]
    _convert(modules, [torch.float32] * len(modules))
    try:
        yield
    finally:
        _convert(modules, before)


def _convert(modules: Sequence[nn.Module], dtypes: Sequence[torch.dtype]) -> None:
    with torch.inference_mode(False), torch.no_grad():  # tensors made in inference mode could never be trained again
        for module, dtype in zip(modules, dtypes, strict=True):
            module.to(dtype)


def _automatic_dtype(name: str) -> torch.dtype:
    if name != "cpu":
        return torch.float16
    return (
        torch.bfloat16
        if _matmul_seconds(torch.bfloat16) * BF16_MARGIN < _matmul_seconds(torch.float32)
        else torch.float32
    )


def _matmul_seconds(dtype: torch.dtype, side: int = 1024) -> float:
    """Best of five products of two `side` × `side` matrices, after one to warm up."""
    matrix = torch.ones(side, side, dtype=dtype)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - start)
    return min(times[1:])
