"""What kind of failure an error of torch or a driver is."""

import torch

_MEMORY_SIGNS = ("out of memory", "not enough memory", "can't allocate memory")
_LOST_SIGNS = ("CUDA error:", "HIP error:", "CUDNN_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_INTERNAL_ERROR")
"""What errors of drivers say that reach us as something other than torch's class for them."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory left, whichever allocator says so."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _MEMORY_SIGNS)


def is_device_lost(error: BaseException) -> bool:
    """Whether this process cannot use its GPU any more: a driver's error stays until the process ends."""
    if is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or any(sign in str(error) for sign in _LOST_SIGNS)
