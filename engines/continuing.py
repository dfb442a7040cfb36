"""A pipeline that begins in the middle of its timesteps: from a picture's latents with noise upon them (SDEdit, Meng et
al., 2021, arXiv:2108.01073), of which a part may be kept as it is at every step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor


class Continuation:
    """Begins one call of a pipeline from `clean` latents `(1, 4, H/8, W/8)`, `skipped` steps of its count late.

    `changing` `(1, 1, H/8, W/8)` is 1 where the picture may change and 0 where it is put back, with the noise of its
    level, after each step. None: it may change everywhere.
    """

    def __init__(self, clean: Tensor, skipped: int, changing: Tensor | None = None) -> None:
        self._clean = clean
        self._skipped = skipped
        self._changing = changing
        self._noise = clean
        self._all: Any = None
        self._left: Any = None

    @contextmanager
    def entered(self, pipeline: Any) -> Iterator[None]:
        """Let `pipeline`, one of `engines.pipelines`, begin so when it is called."""
        scheduler = pipeline.scheduler
        set_timesteps, set_begin = scheduler.set_timesteps, getattr(scheduler, "set_begin_index", None)
        scheduler.set_timesteps = self._cutting(scheduler, set_timesteps)
        if set_begin is not None:
            scheduler.set_begin_index = lambda begin=0: set_begin(begin + self._skipped * scheduler.order)
        pipeline.continuation = self
        try:
            yield
        finally:
            pipeline.continuation = None
            scheduler.set_timesteps = set_timesteps
            if set_begin is not None:
                scheduler.set_begin_index = set_begin

    def _cutting(self, scheduler: Any, set_timesteps: Callable[..., None]) -> Callable[..., None]:
        # `wraps` keeps the signature: pipelines hand timesteps of one's own to a scheduler that names them.
        @wraps(set_timesteps)
        def cutting(*args: Any, **kwargs: Any) -> None:
            set_timesteps(*args, **kwargs)
            self._all, self._left = scheduler.timesteps, scheduler.timesteps[self._skipped * scheduler.order :]
            # Timesteps can repeat after rounding: without this, a scheduler would look its place up by value.
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index()
            # The pipeline is about to read these; `noised` puts back all of them, by which schedulers find the next.
            scheduler.timesteps = self._left

        return cutting

    def noised(self, scheduler: Any, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Tensor:
        """The latents at the first timestep that is left; the pipeline asks for them once it knows its timesteps."""
        scheduler.timesteps = self._all
        self._clean = self._clean.to(device, dtype)
        self._noise = randn_tensor(self._clean.shape, generator=generator, device=device, dtype=dtype)
        return self._at(scheduler, 0)

    def after_step(self, scheduler: Any, step_index: int, latents: Tensor) -> Tensor:
        """`latents` after a step, with what is kept put back at the same level of noise, or clean after the last."""
        if self._changing is None:
            return latents
        is_last = step_index + 1 == len(self._left)
        kept = self._clean if is_last else self._at(scheduler, step_index + 1)
        changing = self._changing.to(latents)
        return changing * latents + (1 - changing) * kept.to(latents)

    def _at(self, scheduler: Any, index: int) -> Tensor:
        return scheduler.add_noise(self._clean, self._noise, self._left[index : index + 1])


def calls(scheduler: Any, steps: int, timesteps: tuple[int, ...] | None, skipped: int) -> int:
    """How often a pipeline steps that begins `skipped` of its `steps` late: with Heun, twice each but for the last."""
    fresh = type(scheduler).from_config(scheduler.config)
    if timesteps:
        fresh.set_timesteps(timesteps=list(timesteps))
    else:
        fresh.set_timesteps(steps)
    return len(fresh.timesteps) - skipped * fresh.order
