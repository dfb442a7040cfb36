"""The processes that share one training: each learns from its share of every batch, and all take the same step.

`accelerate launch` starts them, or the studio does in the same way. What a process does not learn from it reckons with
all the same, so that noise, captions and timesteps are those of a training in one process.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import PartialState
from torch import distributed, nn

_PATIENCE = timedelta(days=7)
"""How long one waits for another: while the first looks or is held, the others wait."""


class Processes:
    """This process among `count`; `index` counts from 0. The first tells, looks and writes; the others follow it until
    they are done, or it is gone."""

    def __init__(self, index: int = 0, count: int = 1, device: str = "cpu") -> None:
        self.index = index
        self.count = count
        self._device = device

    @classmethod
    def joined(cls, *, on_cpu: bool) -> "Processes":
        """Those that this process was started among, by the variables that accelerate sets."""
        state = PartialState(cpu=on_cpu, timeout=_PATIENCE) if "WORLD_SIZE" in os.environ else None
        return cls(state.process_index, state.num_processes, str(state.device)) if state else cls()

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def share(self, size: int) -> tuple[slice, float]:
        """What of a batch of `size` is learnt here, and how much the mean over that counts in the mean over all: equal
        parts, or the first ones larger by one. A process that is left without anything takes the first, for nothing."""
        part, more = divmod(size, self.count)
        start = self.index * part + min(self.index, more)
        length = part + (self.index < more)
        return (slice(start, start + length), length / size) if length else (slice(0, 1), 0.0)

    def add_up(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the sum over all processes in place of each gradient."""
        if self.count == 1:
            return
        gradients = [each.grad for each in parameters if each.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(together)
        for gradient, summed in zip(gradients, together.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def sum_of(self, value: float) -> float:
        """The sum over all processes."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self._device)
        distributed.all_reduce(total)
        return float(total)

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The first process does what the context holds before the others do: they find what it kept on disk."""
        if not self.is_first:
            distributed.barrier()
        yield
        if self.is_first and self.count > 1:
            distributed.barrier()
