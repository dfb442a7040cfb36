"""Finished pictures: a folder of PNG files that tell everything about themselves, and the ledger that finds them.

The file comes first and the row second, so a row always has its file. After a crash `reconcile` makes both agree:
the files are the truth, and a lost ledger is rebuilt from them.
"""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from PIL import Image

from studio.c2pa_signing import C2paSigner
from studio.domain.catalogue import Catalogue
from studio.domain.errors import JobCancelled, NotFound, StorageFailed
from studio.domain.images import ImageRecord
from studio.domain.request import ResolvedRequest
from studio.files import atomic_write, make_folder, storage_errors, sweep_partials
from studio.holding import OnStorageFailed, at_once
from studio.ledger import Ledger
from studio.metadata import embed, pixels_sha256, read_record

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NewImage:
    """What its maker knows about an image (see `ImageRecord`); the gallery decides name, place and time."""

    job_id: str
    visitor: str
    image_index: int
    recipe: ResolvedRequest
    prompt_as_run: str
    negative_as_run: str
    environment: dict[str, str]
    seconds: dict[str, float]
    peak_memory_mb: float


class Gallery:
    """The pictures under `root`."""

    def __init__(self, root: Path, ledger: Ledger, catalogue: Catalogue, signer: C2paSigner | None = None) -> None:
        self._signer = signer
        self._root = root
        self._ledger = ledger
        self._catalogue = catalogue

    def save(self, image: Image.Image, new: NewImage, on_failure: OnStorageFailed = at_once) -> ImageRecord:
        """Keep a picture. One that its job has recorded already (before a restart) stays, and is what this gives. What
        keeps it from being kept is told `on_failure`, which may have it tried again.

        Raises:
            StorageFailed: the disk is full, or the folder or the ledger cannot be written. A file is whole or absent,
                and one whose row could not be written is recorded by the next `reconcile`.
        """
        for existing in self._ledger.images_of_job(new.job_id):
            if existing.image_index == new.image_index:
                return existing
        record = self._named(image, new)
        content = self.signed(embed(image, record, self._catalogue), "PNG", record)
        while True:
            try:
                return self._stored(record, content)
            except StorageFailed as failed:
                self._wait(on_failure, failed, record)

    def _wait(self, on_failure: OnStorageFailed, failed: StorageFailed, record: ImageRecord) -> None:
        try:
            on_failure(failed)
        except JobCancelled:  # nobody wants it any more; else `reconcile` would find what is there of it
            with suppress(OSError):
                self.path(record).unlink(missing_ok=True)
            raise

    def _stored(self, record: ImageRecord, content: bytes) -> ImageRecord:
        """Write file and row; what an earlier try left of them is written over."""
        path = self.path(record)
        make_folder(path.parent)
        atomic_write(path, content)
        stored = self._ledger.add_image(record)
        if stored.id != record.id:  # another thread was faster
            path.unlink(missing_ok=True)
        return stored

    def signed(self, content: bytes, file_format: str, record: ImageRecord) -> bytes:
        """A file (PNG, JPEG or WEBP) of a picture with its C2PA manifest, where a certificate is set; else as it is."""
        if self._signer is None:
            return content
        return self._signer.signed(content, file_format, is_composite=bool(record.recipe.init_image))

    def of_job(self, job_id: str) -> list[ImageRecord]:
        """The pictures that a job made and nobody has deleted, in order."""
        return self._ledger.images_of_job(job_id)

    def alike(self, recipe: ResolvedRequest, prompts: tuple[str, str], visitor: str) -> list[ImageRecord]:
        """The pictures of `visitor` that were made by exactly this recipe and these texts as run, newest first."""
        return self._ledger.images_of_recipe(recipe, *prompts, visitor)

    def is_whole(self, record: ImageRecord) -> bool:
        """Whether the file of a picture is there, with every pixel as it was made."""
        try:
            found = read_record(self.path(record), record.path)
        except NotFound:
            return False
        return found is not None and found.pixels_sha256 == record.pixels_sha256

    def reuse(self, job_id: str, image_index: int, record: ImageRecord) -> bool:
        """Let a picture of an earlier job be picture `image_index` of another one; False if it was just deleted."""
        return self._ledger.reuse_image(job_id, image_index, record.id)

    def image(self, image_id: str) -> ImageRecord:
        """Raises NotFound for an id that no picture has."""
        return self._ledger.image(image_id)

    def path(self, record: ImageRecord) -> Path:
        """Where the file of `record` lies: always under the gallery's root.

        Raises:
            NotFound: the record points elsewhere.
        """
        root = self._root.resolve()
        path = (root / record.path).resolve()
        if not path.is_relative_to(root):
            raise NotFound("This picture lies outside the gallery.", "Its record is damaged; delete it.")
        return path

    def find(
        self,
        text: str = "",
        filters: dict[str, Any] | None = None,
        starred: bool | None = None,
        limit: int = 48,
        offset: int = 0,
        visitor: str | None = None,
        compared: bool | None = None,
    ) -> list[ImageRecord]:
        """Pictures that fit a search, newest first; of `visitor` only, if given. See `studio.search`."""
        return self._ledger.search(text, filters, starred, limit, offset, visitor, compared)

    def count(
        self,
        text: str = "",
        filters: dict[str, Any] | None = None,
        starred: bool | None = None,
        visitor: str | None = None,
        compared: bool | None = None,
    ) -> int:
        """How many pictures fit a search."""
        return self._ledger.count(text, filters, starred, visitor, compared)

    def star(self, image_id: str, is_starred: bool) -> None:
        """Raises NotFound for an id that no picture has."""
        self._ledger.set_starred(image_id, is_starred)

    def delete(self, image_id: str) -> None:
        """Remove a picture for good; nothing happens if it is gone already."""
        try:
            path = self.path(self._ledger.image(image_id))
        except NotFound:
            self._ledger.remove_image(image_id)
            return
        # The file goes first: were a crash to leave it without its row, `reconcile` would bring the picture back.
        with storage_errors(path):
            path.unlink(missing_ok=True)
        self._ledger.remove_image(image_id)

    def reconcile(self) -> None:
        """Make files and rows agree again, and sweep what a crash left half-written. For the studio's start."""
        rows = (
            self._ledger.image_paths()
        )  # before the files: another process may be saving, and it saves the file first
        with storage_errors(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            files = {path.relative_to(self._root).as_posix() for path in self._root.rglob("*.png") if path.is_file()}
        sweep_partials(self._root)
        for path in rows.keys() - files:
            logger.warning("picture %s has lost its file; its record is dropped", path)
            self._ledger.remove_image(rows[path])
        for path in sorted(files - rows.keys()):
            self._adopt(path)

    def _adopt(self, path: str) -> None:
        """Record a picture that has no row: the studio was killed between the two, or the ledger was lost."""
        record = read_record(self._root / path, path)
        if record is None:
            logger.info("picture %s was not made here; left alone", path)
        elif self._ledger.add_image(record) == record:
            logger.info("job %s: picture %s found again", record.job_id, path)

    def _named(self, image: Image.Image, new: NewImage) -> ImageRecord:
        image_id, now, pixels = self._ledger.new_id(), time.time(), pixels_sha256(image)
        # The first 16 digits of an id are its time in nanoseconds; the rest is what makes it unguessable.
        name = time.strftime(f"%Y-%m-%d/%H%M%S-{new.recipe.seed}-{pixels[:8]}-{image_id[:16]}.png", time.localtime(now))
        known = {field.name: getattr(new, field.name) for field in fields(NewImage)}
        return ImageRecord(id=image_id, created_at=now, path=name, pixels_sha256=pixels, **known)


def opened(path: Path) -> Image.Image:
    """A picture's RGB pixels, its file closed again."""
    with Image.open(path) as image:
        return image.convert("RGB")
