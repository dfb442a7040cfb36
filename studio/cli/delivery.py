"""Copies of the gallery's files, where the caller wants them."""

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

from studio.domain.errors import InvalidRequest
from studio.domain.images import ImageRecord
from studio.files import atomic_write, storage_errors
from studio.gallery import Gallery


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished picture: `path` is the copy that was asked for, or else the gallery's own file. `is_earlier`: it was
    made before, by another job."""

    record: ImageRecord
    path: Path
    gallery_path: Path
    is_earlier: bool


class Delivery:
    """Takes the pictures of a job from the gallery, each once; copies them to `folder` if there is one."""

    def __init__(self, job_id: str, gallery: Gallery, folder: Path | None) -> None:
        self._job_id = job_id
        self._gallery = gallery
        self._folder = folder
        self.pictures: list[Picture] = []

    def take(self, image_id: str) -> Picture | None:
        """Deliver a picture; None if it was delivered before.

        Raises:
            StorageFailed: the copy cannot be written; the gallery has the picture.
        """
        if any(picture.record.id == image_id for picture in self.pictures):
            return None
        record = self._gallery.image(image_id)
        source = self._gallery.path(record)
        path = source if self._folder is None else copied(source, self._folder, str(record.recipe.seed))
        picture = Picture(record=record, path=path, gallery_path=source, is_earlier=record.job_id != self._job_id)
        self.pictures.append(picture)
        return picture


def prepared(folder: Path) -> Path:
    """Make `folder` if need be, and try it, before hours go into pictures that it cannot hold.

    Raises:
        InvalidRequest: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        why = (error.strerror or "the system does not say why").lower()
        raise InvalidRequest(
            f"The folder {str(folder)!r} cannot be written: {why}.", "Choose another one.", "out"
        ) from None


def copied(source: Path, folder: Path, stem: str) -> Path:
    """Copy a PNG byte for byte to `stem`.png, or `stem`-2.png and so on where that name is taken."""
    with storage_errors(source):
        data = source.read_bytes()
    with storage_errors(folder):
        target = _reserve(folder, stem)
    try:
        atomic_write(target, data)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target


def _reserve(folder: Path, stem: str) -> Path:
    """Take a free name by creating it empty: two commands may write into one folder at once."""
    for number in itertools.count(1):
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        try:
            path.open("xb").close()
        except FileExistsError:
            continue
        return path
    raise AssertionError("itertools.count has no end")
