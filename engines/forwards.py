"""A module that computes in another way for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Forward = Callable[..., Any]


@contextmanager
def instead_of_forward(module: nn.Module, change: Callable[[Forward], Forward]) -> Iterator[None]:
    """Let `module` compute by what `change` makes of its `forward`."""
    own = vars(module).get("forward")  # offloading sets one; else the class's own serves
    module.forward = change(module.forward)
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own
