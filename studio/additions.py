"""What a recipe adds to its checkpoint: the adapters that its prompt names, its accelerator, what it starts from."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from engines.base import ChosenAdapter, OnFetch, Start, never, unheard
from studio.accelerators import AcceleratorService
from studio.adapters import AdapterService
from studio.controls import ControlService
from studio.domain.request import ResolvedRequest
from studio.sources import Sources


@dataclass(frozen=True, kw_only=True)
class Added:
    """Adapters with their files, the accelerator's first, at which timesteps to draw (None: the sampler's own), and the
    pictures that it starts from (None: noise alone)."""

    adapters: tuple[ChosenAdapter, ...]
    timesteps: tuple[int, ...] | None
    start: Start | None


@dataclass(frozen=True, kw_only=True)
class Additions:
    """Finds them for a recipe, and says what they are."""

    adapters: AdapterService
    accelerators: AcceleratorService
    sources: Sources
    controls: ControlService

    def of(
        self,
        recipe: ResolvedRequest,
        cancelled: Callable[[], bool] = never,
        on_fetch: OnFetch = unheard,
    ) -> Added:
        """What is added to a picture of `recipe`; an accelerator that is not here is fetched.

        Raises:
            NotFound: something went away since it was chosen.
            DownloadFailed, StorageFailed, JobCancelled: as `AcceleratorService.ready`.
        """
        start = self._start(recipe, cancelled, on_fetch)
        named = self.adapters.chosen(recipe.prompt)
        accelerated = self.accelerators.ready(recipe, cancelled, on_fetch)
        if accelerated is None:
            return Added(adapters=named, timesteps=None, start=start)
        return Added(adapters=(accelerated.adapter, *named), timesteps=accelerated.timesteps, start=start)

    def _start(self, recipe: ResolvedRequest, cancelled: Callable[[], bool], on_fetch: OnFetch) -> Start | None:
        start = self.sources.start(recipe)
        steering = self.controls.ready(recipe, cancelled, on_fetch)
        return start if steering is None else replace(start or Start(), steering=steering)

    def told(self, recipe: ResolvedRequest) -> dict[str, str]:
        """Names and hashes for a picture's environment; "" for what there is none of.

        Raises:
            NotFound: something went away since it was chosen.
        """
        sha256 = self.accelerators.sha256(recipe)
        return {
            "adapters": self.adapters.hashes(recipe.prompt),
            "accelerator": f"{recipe.accelerator}: {sha256}" if sha256 else "",
            "control": self.controls.told(recipe),
        }
