"""On what kind of machine this runs, where that changes how the studio is put together."""

import os
from collections.abc import Mapping

ZERO_GPU = "SPACES_ZERO_GPU"
"""Set by Hugging Face on a Space whose hardware is ZeroGPU."""


def is_zero_gpu(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is a Space with ZeroGPU, read as the package `spaces` reads it: a process has no GPU there, but is
    forked for one when a function of it asks."""
    return environment.get(ZERO_GPU, "").lower() in ("1", "t", "true")
