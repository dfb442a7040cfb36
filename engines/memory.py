"""How much memory a piece of work took at most, and giving back what nobody holds any more."""

import ctypes
import gc
import sys
from pathlib import Path

import psutil
import torch

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Names of mallopt(3)'s parameters."""
_LARGEST_KEPT = 2**26
"""Bytes. Larger blocks are those of decoding: they do not fit into each other's places, and keeping them took a GB."""
_RESET_PEAK = "5"
"""What Linux takes to begin its own count of the peak anew (proc_pid_clear_refs(5))."""


class PeakMemory:
    """The most memory in use at once since it was made, in MB: the GPU's where one computes, else the process's.

    CUDA and Linux count for themselves and miss nothing; elsewhere it is the most that `note` saw.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self._noted = 0.0
        self._is_counted = device.type == "cpu" and _reset_peak()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def note(self) -> None:
        """Look at the present use."""
        if not self._is_counted and self._device.type != "cuda":
            self._noted = max(self._noted, self._process.memory_info().rss / 2**20)

    def megabytes(self) -> float:
        """The peak up to now."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**20
        self.note()
        return _counted_peak_mb() if self._is_counted else self._noted


def reuse_freed_blocks() -> None:
    """Let the C library keep large blocks that are freed, for the next layer, until `release_memory`.

    By default glibc maps every block of 32 MB and more anew, and the system fills each with zeros first: half of the
    page faults of a step of SD 1.5, and a tenth of its time. One arena for all threads, for those of others are small.
    """
    option = getattr(_c_library(), "mallopt", None)
    if option is not None:
        option(_ARENA_MAX, 1)
        option(_MMAP_THRESHOLD, _LARGEST_KEPT)
        option(_TRIM_THRESHOLD, 2**31 - 1)


def release_memory() -> None:
    """Give memory that is no longer in use back to the system. The C library keeps freed memory for itself otherwise,
    and a process that changes checkpoints grows with each."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _c_library() -> ctypes.CDLL | None:
    """The one that `malloc` comes from; only glibc has the functions that are called here, and only it needs them."""
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def _reset_peak() -> bool:
    """Let the kernel count from here; False where it cannot."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
        return _counted_peak_mb() > 0
    except OSError:
        return False


def _counted_peak_mb() -> float:
    lines = _STATUS.read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
