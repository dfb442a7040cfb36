"""Lets torchvision be imported beside a torch that it was not compiled for, such as its CUDA wheel beside a CPU build.

Its compiled operations (boxes of detectors) are then missing, which nothing here misses; but it describes them as soon
as it is imported, and torch refuses to have described what has no name.
"""

import importlib.util
import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_NAME = "torchvision"
_DESCRIBED = re.compile(r'register_(?:fake|meta)\("(?:torchvision::)?(\w+)"')
_kept: list[object] = []
"""What must live for the names to last."""


class _BeforeTorchvision(MetaPathFinder):
    """Finds nothing: it is asked first, and that is its moment."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == _NAME:
            sys.meta_path.remove(self)
            _name_missing_operations()
        return None


def name_before_import() -> None:
    """Give torchvision's missing operations names, at the moment when somebody imports it. Costs nothing before."""
    if _NAME not in sys.modules and not any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTorchvision())


def _name_missing_operations() -> None:
    spec = importlib.util.find_spec(_NAME)
    if spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent
    import torch

    try:
        for compiled in (*folder.glob("_C*.so"), *folder.glob("_C*.pyd")):
            torch.ops.load_library(compiled)  # what torchvision does first of all; twice is once
            return
    except (ImportError, OSError):
        pass
    descriptions = folder / "_meta_registrations.py"
    if descriptions.is_file():
        library = torch.library.Library(_NAME, "FRAGMENT")
        for name in sorted(set(_DESCRIBED.findall(descriptions.read_text(encoding="utf-8")))):
            library.define(f"{name}(Tensor input) -> Tensor")
        _kept.append(library)
