"""A data set of the Hugging Face hub as pictures to train with: fetched once, from then on a folder like any other."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.domain.errors import InvalidRequest, JobCancelled
from studio.domain.hub import is_hub_id
from studio.settings import Settings

USUAL_PICTURES = 200
"""How many are fetched where nobody says: more than most LoRAs are trained on."""
MAX_PICTURES = 100_000


def fetch_pictures(
    settings: Settings,
    hub_id: str,
    count: Any = USUAL_PICTURES,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    check: Callable[[], None] = lambda: None,
) -> Path:
    """The folder of the studio's own with the first `count` pictures and captions of the data set `hub_id`, fetched
    unless it is there; it has fewer where the data set has. What has come when it breaks off, or `check` raises, is
    kept for the next call. `on_progress` hears how many are there, of how many.

    Raises:
        InvalidRequest: no id of a data set (`dataset`), or no number of pictures (`num_pictures`).
        DatasetError: the data set has no pictures with captions that can be read.
        DownloadFailed: it is gone, it may not be had, the hub does not answer, or the studio is offline.
        StorageFailed: the disk is too full or cannot be written.
    """
    name = hub_id.strip()
    if not is_hub_id(name):
        raise InvalidRequest(
            f"{name[:100]!r} is no id of a data set on the Hugging Face hub.",
            "Give it as its page does: owner/name.",
            "dataset",
        )
    if not isinstance(count, int | float) or not 1 <= count <= MAX_PICTURES:
        raise InvalidRequest(
            f"{count!r} is no number of pictures.", f"Give one from 1 to {MAX_PICTURES:,}.", "num_pictures"
        )
    from engines.hub_datasets import fetch_dataset  # imported here: what it reads parquet with is not always needed

    return fetch_dataset(
        name, int(count), settings.datasets_dir, offline=settings.offline, on_progress=on_progress, check=check
    )


class Fetching:
    """`fetch_pictures` in a thread of its own, for a page that looks now and then."""

    def __init__(self, settings: Settings, hub_id: str, count: Any) -> None:
        self.progress = (0, 0)
        """How many are there, of how many; (0, 0) until that is known."""
        self._stop = threading.Event()
        self._folder: Path | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(settings, hub_id, count), name="fetch", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether it is over, looked at for so long."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def stop(self) -> None:
        """End soon; what has come is kept."""
        self._stop.set()

    def folder(self) -> Path:
        """What came of it; raises as `fetch_pictures` does."""
        if self._error is not None:
            raise self._error
        assert self._folder is not None, "it is over"
        return self._folder

    def _run(self, settings: Settings, hub_id: str, count: Any) -> None:
        try:
            self._folder = fetch_pictures(settings, hub_id, count, self._tell, self._check)
        except Exception as error:  # for whoever asks for the folder
            self._error = error

    def _tell(self, done: int, total: int) -> None:
        self.progress = (done, total)

    def _check(self) -> None:
        if self._stop.is_set():
            raise JobCancelled
