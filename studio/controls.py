"""ControlNets at work: their files found or fetched, and the maps that they read made of pictures."""

from collections.abc import Callable
from pathlib import Path

from engines.base import OnFetch, Steering, never, unheard
from engines.downloads import fetch_file
from engines.edges import edges
from engines.hub_files import Source
from engines.parts import CONTROL_FILES, CONTROL_WEIGHTS
from studio.domain.catalogue import Catalogue, Control
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.request import ResolvedRequest
from studio.fitting import fitted
from studio.settings import PROJECT_ROOT
from studio.sources import Sources
from studio.tensor_hashes import TensorHashes


class ControlService:
    """The files of the catalogue's ControlNets. A folder in `folder` with the id of a row, as diffusers keeps one,
    takes the place of what would be fetched."""

    def __init__(
        self, catalogue: Catalogue, sources: Sources, folder: Path, *, offline: bool, endpoint: str | None = None
    ) -> None:
        self._catalogue = catalogue
        self._sources = sources
        self._folder = folder
        self._offline = offline
        self._endpoint = endpoint
        self._hashes = TensorHashes()

    def prepared(self, recipe: ResolvedRequest, visitor: str) -> ResolvedRequest:
        """`recipe` with its picture to keep to as the map that is read, as large as what is drawn.

        Raises:
            NotFound, StorageFailed: the picture is gone, or the map cannot be kept.
            InvalidRequest: a picture is given where a map is needed: nobody here can tell how far things are.
        """
        row = self._catalogue.control(recipe.control)
        if row is None:
            return recipe
        if row.reads == "depth" and recipe.control_source == "picture":
            raise InvalidRequest(
                f"{row.title} reads a map of how near things are, and that is not found out here.",
                "Give such a map, light where it is near, and say that it is a map.",
                "control_source",
            )
        image = fitted(self._sources.open(recipe.control_image), (recipe.width, recipe.height), "crop")
        if recipe.control_source == "picture":
            image = edges(image)
        return recipe.model_copy(update={"control_image": self._sources.keep(image, visitor), "control_source": "map"})

    def ready(
        self,
        recipe: ResolvedRequest,
        cancelled: Callable[[], bool] = never,
        on_fetch: OnFetch = unheard,
    ) -> Steering | None:
        """What a recipe keeps to, the ControlNet fetched where it is not here; None for one that is drawn freely.

        Raises:
            NotFound: its map, its file or its row is gone.
            DownloadFailed, StorageFailed: it cannot be had.
            JobCancelled: within a second of `cancelled()` turning true.
        """
        row = self._catalogue.control(recipe.control)
        if row is None:
            return None
        hint = self._sources.open(recipe.control_image)
        path = self.place(row) or self._fetch(row, cancelled, on_fetch)
        return Steering(path=path, hint=hint, scale=recipe.control_scale)

    def place(self, row: Control) -> Path | None:
        """Where it lies, a file or a folder; None if it has to be fetched first.

        Raises:
            NotFound: it ought to come with the studio, and does not.
        """
        folder = self._folder / row.id
        if all((folder / name).is_file() for name in CONTROL_FILES):
            return folder
        if row.file is None:
            return None
        path = PROJECT_ROOT / row.file
        if not path.is_file():
            raise NotFound(f"{row.title} is not in {row.file}.", "Build it: python -m engines.pocket.build.control.")
        return path

    def told(self, recipe: ResolvedRequest) -> str:
        """The id and the first letters of the hash of its tensors; "" for a recipe without one, or with one that is not
        here."""
        row = self._catalogue.control(recipe.control)
        path = row and self.place(row)
        if row is None or path is None:
            return ""
        return f"{row.id}: {self._hashes.short(path / CONTROL_WEIGHTS if path.is_dir() else path)}"

    def _fetch(self, row: Control, cancelled: Callable[[], bool], on_fetch: OnFetch) -> Path:
        assert row.hub_id is not None
        fetch_file(
            row.title,
            (Source(hub_id=row.hub_id),),
            CONTROL_FILES,
            self._folder / row.id,
            offline=self._offline,
            on_progress=lambda fetched: on_fetch(fetched.done_bytes, fetched.total_bytes),
            cancelled=cancelled,
            endpoint=self._endpoint,
        )
        return self._folder / row.id
