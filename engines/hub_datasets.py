"""Data sets of the Hugging Face hub: the first so many pictures with captions, in a folder as people keep their own.

They gather in a folder with `.part` behind its name, each picture followed by its text file, under the number of its
row; a later call goes on after the last of these. When there are enough, the folder is renamed.
"""

import io
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from PIL import Image, ImageOps

from engines.disk import DISK_FULL, not_stored
from engines.downloads import MARGIN_BYTES, POLL_S
from engines.hub import offline_failure
from engines.hub_repository import INSTEAD, Repository
from engines.hub_rows import Row, Rows, rows_of
from studio.domain.datasets import caption_of
from studio.domain.errors import DatasetError, StorageFailed

logger = logging.getLogger(__name__)

MAX_USELESS = 1000
"""So many rows in a row without a picture and a caption, and the data set counts as over."""
_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp"}
"""What is kept as it comes; MPO is what Pillow calls a JPEG with another one behind it."""
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What is opened at all. Pillow knows more formats, and gives some of them to other programs."""
_SOURCE = "source.json"
_TELL_EVERY_S = 0.5


def fetch_dataset(
    hub_id: str,
    count: int,
    datasets_dir: Path,
    *,
    offline: bool,
    on_progress: Callable[[int, int], None],
    check: Callable[[], None],
    endpoint: str | None = None,
) -> Path:
    """The folder in `datasets_dir` with the first `count` usable pictures and captions of `hub_id`, which are fetched
    unless they are there; it has fewer where the data set has.

    `on_progress` hears how many are there of how many, a few times a second. `check` is called before each row and
    while waiting: it may wait, and may raise. What has come by then, or by a failure, is kept for the next call.

    Raises:
        DatasetError: the data set has no pictures with captions that can be read.
        DownloadFailed: it is gone, it may not be had, or the hub does not answer.
        StorageFailed: the disk is too full or cannot be written.
    """
    folder = datasets_dir / f"{hub_id.replace('/', '--')}--{count}"  # an id has no "--", so no two share a folder
    if folder.is_dir():
        return folder
    if offline:
        raise offline_failure(hub_id, INSTEAD)
    part = _Part(folder.with_name(f"{folder.name}.part"), hub_id)
    with _disk_errors(hub_id, datasets_dir):
        datasets_dir.mkdir(parents=True, exist_ok=True)
        with _alone(folder, check):
            if not folder.is_dir():
                rows = rows_of(Repository(hub_id, endpoint, check))
                part.begin(rows.commit)
                _gather(rows, part, count, on_progress, check)
                os.replace(part.folder, folder)
    return folder


class _Part:
    """What has come of a data set so far."""

    def __init__(self, folder: Path, hub_id: str) -> None:
        self.folder = folder
        self.hub_id = hub_id
        self.next_row = 0
        self.count = 0

    def begin(self, commit: str) -> None:
        """Go on with what an earlier call left of this commit; what is of another one is removed."""
        about = json.dumps({"dataset": self.hub_id, "commit": commit})
        source = self.folder / _SOURCE
        if not source.is_file() or source.read_text(encoding="utf-8") != about:
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir()
            source.write_text(about, encoding="utf-8")
        kept = [int(path.stem) for path in self.folder.glob("*.txt")]
        self.next_row, self.count = max(kept, default=-1) + 1, len(kept)

    def add(self, row: int, picture: bytes, suffix: str, caption: str) -> None:
        """Keep a pair. Its text comes last and at once, so that what has one is whole."""
        if shutil.disk_usage(self.folder).free < MARGIN_BYTES + len(picture):
            raise _too_full(self.hub_id)
        name = f"{row:08d}"  # not what the data set calls it: that may lead anywhere
        _write(self.folder / f"{name}{suffix}", picture)
        partial = self.folder / f"{name}.incomplete"
        _write(partial, caption.encode("utf-8", errors="replace"))
        os.replace(partial, self.folder / f"{name}.txt")
        self.count += 1


def _gather(
    rows: Rows, part: _Part, count: int, on_progress: Callable[[int, int], None], check: Callable[[], None]
) -> None:
    told_at, useless, skipped = 0.0, 0, 0
    if part.count < count:
        for number, row in enumerate(rows.rows(part.next_row), start=part.next_row):
            check()
            useless = 0 if _kept(row, number, part) else useless + 1
            skipped += useless > 0
            if part.count >= count or useless >= MAX_USELESS:
                break
            if time.monotonic() - told_at >= _TELL_EVERY_S:
                told_at = time.monotonic()
                on_progress(part.count, count)
    if skipped:
        logger.warning("%s: %d rows without a usable picture and a caption are left out", part.hub_id, skipped)
    if not part.count:
        shutil.rmtree(part.folder)
        raise DatasetError(
            f"None of the first {skipped:,} rows of {part.hub_id} has a picture and a caption that can be used.",
            f"Choose another data set, or {INSTEAD}.",
        )
    on_progress(part.count, count)


def _kept(row: Row, number: int, part: _Part) -> bool:
    """Whether `row` is of use, and now among those that have come."""
    caption = caption_of(row.caption)
    if not caption:
        return False
    data = row.picture()
    usable = _usable(data) if data else None
    if usable is None:
        return False
    part.add(number, *usable, caption)
    return True


def _usable(data: bytes) -> tuple[bytes, str] | None:
    """The bytes of a picture as they are kept, and the suffix of their format; None where Pillow opens none."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if suffix := _SUFFIXES.get(image.format or ""):
                return data, suffix
            drawn = io.BytesIO()
            upright = ImageOps.exif_transpose(image)
            upright.convert("RGBA" if upright.has_transparency_data else "RGB").save(drawn, "PNG")
            return drawn.getvalue(), ".png"
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        logger.info("a picture is left out: %s", error)
        return None


@contextmanager
def _alone(folder: Path, check: Callable[[], None]) -> Generator[None]:
    """Wait until no other process fetches the same, then keep others off until `folder` is there."""
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    while not lock.is_locked:
        check()
        with suppress(Timeout):
            lock.acquire(timeout=POLL_S)
    try:
        yield
    finally:
        lock.release()
        if folder.is_dir():
            Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def _disk_errors(hub_id: str, datasets_dir: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        logger.warning("%s cannot be stored: %s", hub_id, error)
        full = error.errno in DISK_FULL
        raise (_too_full(hub_id) if full else not_stored(error, hub_id, datasets_dir)) from error


def _too_full(hub_id: str) -> StorageFailed:
    return StorageFailed(
        f"The disk is too full for {hub_id}: {MARGIN_BYTES / 1e9:.1f} GB are to stay free.",
        "Free some space, or choose another data folder (FLASH_STUDIO_DATA_DIR); what has arrived is kept.",
    )


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
