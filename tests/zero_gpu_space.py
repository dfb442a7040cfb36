"""`python -m tests.zero_gpu_space`: the page as on a Space with ZeroGPU, with the real package `spaces` and no GPU.

What asks for CUDA itself is left out of `spaces`, since a torch without CUDA has nothing there: its fork, what goes in
and comes out, its scheduling and its ways of failing are its own.
"""

import importlib
import runpy
from typing import Any


def without_cuda() -> None:
    """Import `spaces` as if this torch had CUDA."""
    torch: Any = importlib.import_module("torch")
    torch.version.cuda = torch.version.cuda or "12.8"
    if not hasattr(torch._C, "_cuda_init"):
        torch._C._cuda_init = lambda: None
        torch.cuda._is_in_bad_fork = bool  # which is asked in another process, and says no
    cuda: Any = importlib.import_module("spaces.zero.torch")
    cuda.init = lambda nvidia_uuid: None
    cuda.move = lambda callback=None: None


if __name__ == "__main__":
    without_cuda()
    runpy.run_path("app.py", run_name="__main__")
