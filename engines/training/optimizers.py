"""The optimisers that there are to choose from, some of which must be installed."""

import importlib
from importlib.util import find_spec
from typing import Any

import torch

from studio.domain.errors import TrainingFailed
from studio.domain.training import OPTIMIZER_PACKAGES, OPTIMIZER_TITLES, OptimizerId

_BETAS, _DECAY = (0.9, 0.99), 0.01


def is_available(name: OptimizerId) -> bool:
    """Whether what it needs is installed, and runs here: 8-bit state only on a CUDA device."""
    package = OPTIMIZER_PACKAGES.get(name)
    if package is not None and find_spec(package) is None:
        return False
    return name != "adamw8bit" or torch.cuda.is_available()


def new_optimizer(name: OptimizerId, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """An optimiser of parameter groups, each with its `peak` learning rate.

    Raises:
        TrainingFailed: it is not installed, or does not run here.
    """
    if not is_available(name):
        package = OPTIMIZER_PACKAGES[name]
        raise TrainingFailed(
            f"{OPTIMIZER_TITLES[name]} cannot be used here: it needs {package}, and 8-bit state a CUDA device.",
            f"Install it (pip install {package}), or choose AdamW.",
        )
    groups = [{**group, "lr": group["peak"]} for group in groups]
    if name == "adamw":
        return torch.optim.AdamW(groups, betas=_BETAS, weight_decay=_DECAY, fused=True)
    package = importlib.import_module(OPTIMIZER_PACKAGES[name])
    if name == "adamw8bit":
        return package.optim.AdamW8bit(groups, betas=_BETAS, weight_decay=_DECAY)
    # It estimates the rate from all parameters together: one group, of rate 1 (Mishchenko & Defazio, 2023).
    together = [parameter for group in groups for parameter in group["params"]]
    return package.Prodigy([{"params": together, "peak": 1.0}], lr=1.0, betas=_BETAS, weight_decay=_DECAY)
