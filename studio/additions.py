"""What a recipe adds to its checkpoint: the adapters that its prompt names, and its accelerator."""

from collections.abc import Callable
from dataclasses import dataclass

from engines.base import ChosenAdapter, OnFetch, unheard
from studio.accelerators import AcceleratorService
from studio.adapters import AdapterService
from studio.domain.request import ResolvedRequest


@dataclass(frozen=True, kw_only=True)
class Added:
    """Adapters with their files, the accelerator's first, and at which timesteps to draw (None: the sampler's own)."""

    adapters: tuple[ChosenAdapter, ...]
    timesteps: tuple[int, ...] | None


@dataclass(frozen=True, kw_only=True)
class Additions:
    """Finds both for a recipe, and says what they are."""

    adapters: AdapterService
    accelerators: AcceleratorService

    def of(
        self,
        recipe: ResolvedRequest,
        cancelled: Callable[[], bool] = lambda: False,
        on_fetch: OnFetch = unheard,
    ) -> Added:
        """What is added to a picture of `recipe`; an accelerator that is not here is fetched.

        Raises:
            NotFound: something went away since it was chosen.
            DownloadFailed, StorageFailed, JobCancelled: as `AcceleratorService.ready`.
        """
        named = self.adapters.chosen(recipe.prompt)
        accelerated = self.accelerators.ready(recipe, cancelled, on_fetch)
        if accelerated is None:
            return Added(adapters=named, timesteps=None)
        return Added(adapters=(accelerated.adapter, *named), timesteps=accelerated.timesteps)

    def told(self, recipe: ResolvedRequest) -> dict[str, str]:
        """Names and hashes for a picture's environment; "" for what there is none of.

        Raises:
            NotFound: something went away since it was chosen.
        """
        sha256 = self.accelerators.sha256(recipe)
        return {
            "adapters": self.adapters.hashes(recipe.prompt),
            "accelerator": f"{recipe.accelerator}: {sha256}" if sha256 else "",
        }
