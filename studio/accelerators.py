"""Accelerators at work: their files found or fetched, and what they make of one recipe."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines.base import ChosenAdapter, OnFetch, never, unheard
from engines.downloads import Fetched, fetch_file
from engines.hub_files import Source
from studio.domain.catalogue import Accelerator, Catalogue
from studio.domain.errors import NotFound
from studio.domain.request import ResolvedRequest
from studio.domain.tags import AdapterUse
from studio.settings import PROJECT_ROOT
from studio.tensor_hashes import TensorHashes


@dataclass(frozen=True, kw_only=True)
class Accelerated:
    """What a recipe's accelerator adds to a picture: its adapter, and at which timesteps it is drawn (None: the
    sampler's own)."""

    adapter: ChosenAdapter
    timesteps: tuple[int, ...] | None


class AcceleratorService:
    """The files of the catalogue's accelerators. One that was put into `folder` by hand, as `<id>.safetensors`, takes
    the place of what the catalogue names."""

    def __init__(self, catalogue: Catalogue, folder: Path, *, offline: bool, endpoint: str | None = None) -> None:
        self._catalogue = catalogue
        self._folder = folder
        self._offline = offline
        self._endpoint = endpoint
        self._hashes = TensorHashes()

    def ready(
        self,
        recipe: ResolvedRequest,
        cancelled: Callable[[], bool] = never,
        on_fetch: OnFetch = unheard,
    ) -> Accelerated | None:
        """What the accelerator of `recipe` adds, its file fetched where it is not here; None for a recipe without.

        Raises:
            NotFound: its file, or its row, is gone.
            DownloadFailed, StorageFailed: it cannot be had.
            JobCancelled: within a second of `cancelled()` turning true.
        """
        row = self._catalogue.accelerator(recipe.accelerator)
        if row is None:
            return None
        path = self.place(row, recipe.num_inference_steps) or self._fetch(row, recipe, cancelled, on_fetch)
        is_own_sampler = recipe.scheduler == row.scheduler
        return Accelerated(
            adapter=ChosenAdapter(use=AdapterUse(adapter=row.id, lora_scale=row.lora_scale), path=path),
            timesteps=row.timesteps(recipe.num_inference_steps) if is_own_sampler else None,
        )

    def place(self, row: Accelerator, steps: int) -> Path | None:
        """Where its file for so many steps lies; None if it has to be fetched first.

        Raises:
            NotFound: it ought to come with the studio, and does not.
        """
        dropped = self._folder / f"{row.id}.safetensors"
        if dropped.is_file():
            return dropped
        if row.file is None:
            fetched = self._folder_of(row, steps) / Path(row.hub_file(steps)).name
            return fetched if fetched.is_file() else None
        path = PROJECT_ROOT / row.file
        if not path.is_file():
            raise NotFound(
                f"{row.title} is not in {row.file}.", "Build it: python -m engines.pocket.build.accelerator."
            )
        return path

    def sha256(self, recipe: ResolvedRequest) -> str:
        """The first letters of the hash of its tensors; "" for a recipe without an accelerator, or with one that is not
        here."""
        row = self._catalogue.accelerator(recipe.accelerator)
        path = row and self.place(row, recipe.num_inference_steps)
        return "" if path is None else self._hashes.short(path)

    def _fetch(
        self, row: Accelerator, recipe: ResolvedRequest, cancelled: Callable[[], bool], on_fetch: OnFetch
    ) -> Path:
        assert row.hub_id is not None

        def tell(fetched: Fetched) -> None:
            on_fetch(fetched.done_bytes, fetched.total_bytes)

        steps = recipe.num_inference_steps
        return fetch_file(
            row.title,
            (Source(hub_id=row.hub_id),),
            row.hub_file(steps),
            self._folder_of(row, steps),
            offline=self._offline,
            on_progress=tell,
            cancelled=cancelled,
            endpoint=self._endpoint,
        )

    def _folder_of(self, row: Accelerator, steps: int) -> Path:
        return self._folder / row.id / Path(row.hub_file(steps)).stem
