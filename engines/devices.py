"""Which device and number format to compute in and how much memory is free there: what is here, and on CPUs a short
measurement."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn

from engines.system_memory import system_free_bytes
from studio.domain.errors import InvalidRequest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SIDE = 512
"""Of the matrices whose product is timed: a few milliseconds, less than a system gives a program at a time."""
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


def free_bytes(device: str, *, is_for_others: bool = False) -> int:
    """Memory of `device` that is free now: the GPU's, or what the system or a container's limit leaves this process.
    What this process keeps of a GPU for later is free to itself, and not to others."""
    if device == "cuda":
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return torch.cuda.mem_get_info()[0] + (0 if is_for_others else kept)
    if device == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return system_free_bytes()


def dtype_name(dtype: torch.dtype) -> str:
    """As people write it: float32."""
    return str(dtype).removeprefix("torch.")


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
    """Let modules compute in float32 for a while: it holds every number of half precision. Their own weights are kept
    beside it, wherever they lie, and come back as they were."""
    tensors = [
        tensor
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
        if tensor.is_floating_point()
    ]
    own = [tensor.data for tensor in tensors]
    _exchange(tensors, (data.float() for data in own))
    try:
        yield
    finally:
        _exchange(tensors, own)


def _exchange(tensors: Sequence[Tensor], contents: Iterable[Tensor]) -> None:
    with torch.inference_mode(False), torch.no_grad():  # tensors made in inference mode could never be trained again
        for tensor, data in zip(tensors, contents, strict=True):
            tensor.data = data


def _automatic_dtype(name: str) -> torch.dtype:
    if name != "cpu":
        return torch.float16
    matrices = [torch.ones(_SIDE, _SIDE, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)]
    bfloat16, float32 = best_seconds([partial(torch.mm, matrix, matrix) for matrix in matrices], repeats=20)
    return torch.bfloat16 if bfloat16 * BF16_MARGIN < float32 else torch.float32


@cache
def is_bfloat16_fast(device: str) -> bool:
    """Whether `device` computes in bfloat16 much faster than in float32; on a CPU measured, once."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and _automatic_dtype(device) == torch.bfloat16


def best_seconds(works: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The shortest of `repeats` runs of each after one to warm up, turn and turn about and on one thread: also beside
    other programs some of the runs are not disturbed."""
    best = [math.inf] * len(works)
    with cpu_threads(1):
        for turn in range(repeats + 1):
            for index, work in enumerate(works):
                started = time.perf_counter()
                work()
                if turn:
                    best[index] = min(best[index], time.perf_counter() - started)
    return best
