"""Many shards as one set of captions: the same whatever order they are read in, and however often."""

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.captions.checks import Bounds, flags_of
from studio.dataset_captions import name_in, save_captions
from studio.dataset_files import is_file, list_of
from studio.domain.captions import Picture, Row, Status
from studio.domain.datasets import CAPTION_KEYS, LISTS, Layout
from studio.domain.errors import DatasetError
from studio.files import PARTIAL_PREFIX, storage_errors, sync_folder

CONFLICTS = "conflicts.json"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Several captions for one picture; the first is the one that is taken."""

    digest: bytes
    rows: tuple[Row, ...]


class Chosen:
    """The caption of each picture, found row by row: `add` all rows of all shards, in any order.

    Of several captions for one picture, that is taken which passes the checks; of those, the latest; of those, the
    first by captioner, template and words. That is a total order, so neither the order of the rows nor rows that come
    twice change what is taken.
    """

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()
        self._best: dict[bytes, Row] = {}
        self._others: dict[bytes, set[Row]] = {}
        self._failures: dict[bytes, Row] = {}
        self.num_rows = self.num_repeated = 0

    def add(self, row: Row) -> None:
        """Take a row into account."""
        self.num_rows += 1
        if row.status is not Status.DONE:
            earlier = self._failures.get(row.digest)
            if earlier is None or (row.at, row.reason) > (earlier.at, earlier.reason):
                self._failures[row.digest] = row
            return
        best = self._best.get(row.digest)
        if best is None:
            self._best[row.digest] = row
            return
        if best.caption == row.caption:
            self.num_repeated += 1
            self._best[row.digest] = min(best, row, key=self._rank)
            return
        self._others.setdefault(row.digest, set()).update((best, row))
        self._best[row.digest] = min(best, row, key=self._rank)

    def row(self, digest: bytes) -> Row | None:
        """The row whose caption is taken; None where there is no caption."""
        return self._best.get(digest)

    def failure(self, digest: bytes) -> Row | None:
        """The last row that says why a picture has no caption; None where it has one, or none was tried."""
        return None if digest in self._best else self._failures.get(digest)

    def digests(self) -> Iterator[bytes]:
        """Every picture that has a caption."""
        return iter(self._best)

    def conflicts(self) -> list[Conflict]:
        """What was decided between several captions, by picture. A caption that several rows have counts once, with the
        row that ranks first."""
        found: list[Conflict] = []
        for digest, rows in sorted(self._others.items()):
            by_caption: dict[str, Row] = {}
            for row in rows | {self._best[digest]}:
                known = by_caption.get(row.caption)
                by_caption[row.caption] = row if known is None else min(known, row, key=self._rank)
            found.append(Conflict(digest, tuple(sorted(by_caption.values(), key=self._rank))))
        return found

    def flags(self, row: Row) -> tuple[str, ...]:
        """What the checks find in its caption."""
        return flags_of(row.caption, self._bounds)

    def _rank(self, row: Row) -> tuple[bool, tuple[int, ...], str, str, str, str]:
        latest_first = tuple(-ord(character) for character in row.at)
        return bool(self.flags(row)), latest_first, row.captioner, row.template, row.caption, row.name


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge wrote: pictures with a caption and without, captions of pictures that are not there, and what was
    decided between several captions. `path` is the list, or the folder where the captions lie beside the pictures."""

    path: Path
    num_captions: int
    num_missing: int
    num_orphans: int
    conflicts: tuple[Conflict, ...]


def merge(folder: Path, pictures: Iterable[Picture], chosen: Chosen, layout: Layout) -> Merged:
    """Give the pictures of `folder` the captions that are taken: all in its list, or in text files beside them.
    Whatever else a list says of a picture stays. A list is written whole or not at all.

    Raises:
        DatasetError: the folder has a list, and text files are asked for.
        StorageFailed: something cannot be written.
    """
    captions: dict[str, str] = {}
    used: set[bytes] = set()
    missing = 0
    for picture in pictures:
        row = chosen.row(picture.digest)
        if row is None:
            missing += 1
            continue
        used.add(picture.digest)
        captions[picture.name] = row.caption
    path = _write(folder, captions, layout)
    orphans = sum(digest not in used for digest in chosen.digests())
    return Merged(
        path=path,
        num_captions=len(captions),
        num_missing=missing,
        num_orphans=orphans,
        conflicts=tuple(chosen.conflicts()),
    )


def conflict_report(conflicts: Sequence[Conflict], chosen: Chosen) -> bytes:
    """What was decided between several captions, as JSON: for each picture its captions, first the one taken."""
    document: list[dict[str, Any]] = [
        {
            "sha256": conflict.digest.hex(),
            "name": conflict.rows[0].name,
            "taken": conflict.rows[0].caption,
            "captions": [
                {"caption": row.caption, "captioner": row.captioner, "at": row.at, "flags": chosen.flags(row)}
                for row in conflict.rows
            ],
        }
        for conflict in conflicts
    ]
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _write(folder: Path, captions: Mapping[str, str], layout: Layout) -> Path:
    root = folder.resolve()
    listing = list_of(root)
    if layout == "text_files":
        if listing is not None:
            raise DatasetError(
                f"{folder.name!r} has its captions in {listing.name}; text files beside pictures would not be read.",
                "Leave out --layout, or remove that list.",
            )
        save_captions(folder, captions)
        return folder
    if listing is not None and listing.suffix == ".csv":
        save_captions(folder, captions)
        return folder / listing.name
    _write_lines(root / LISTS[0], captions)
    return folder / LISTS[0]


def _write_lines(path: Path, captions: Mapping[str, str]) -> None:
    """A metadata.jsonl with these captions, line by line: nothing of it is held in memory."""
    partial = path.with_name(f"{PARTIAL_PREFIX}-{secrets.token_hex(8)}")
    with storage_errors(path):
        try:
            with partial.open("xb") as file:
                for line in _lines(path, captions):
                    file.write(line.encode("utf-8", "replace") + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def _lines(path: Path, captions: Mapping[str, str]) -> Iterator[str]:
    told: set[str] = set()
    if is_file(path):
        with path.open(encoding="utf-8-sig", errors="replace") as old:
            for line in old:
                name = name_in(line)
                if name in captions and name not in told:
                    told.add(name)
                    yield _with_caption(line, captions[name])
                else:
                    yield line.rstrip("\n")
    for name in sorted(captions.keys() - told):
        yield json.dumps({"file_name": name, "text": captions[name]}, ensure_ascii=False)


def _with_caption(line: str, caption: str) -> str:
    row = json.loads(line)
    key = next((key for key in CAPTION_KEYS if key in row), CAPTION_KEYS[0])
    return json.dumps({**row, key: caption}, ensure_ascii=False)
