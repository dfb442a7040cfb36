"""The pictures of a folder in parts, for training and for testing: where a picture belongs its file alone decides."""

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.dataset_captions import name_in
from studio.dataset_files import Found, found_in, list_of, read_list, whole_folder
from studio.domain.captions import Picture
from studio.domain.datasets import LISTS
from studio.domain.errors import DatasetError, InvalidRequest
from studio.files import atomic_write, storage_errors

_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,40}\Z", re.ASCII)
_STEPS = 2**64


@dataclass(frozen=True, kw_only=True)
class Parted:
    """What was written: how many pictures each part has, by its name."""

    folder: Path
    counts: Mapping[str, int]

    @property
    def summary(self) -> str:
        return ", ".join(f"{count} in {name}" for name, count in self.counts.items()) + "."


def parse_shares(text: str) -> dict[str, float]:
    """Names and shares as `train=0.9,validation=0.1` gives them; they add up to 1.

    Raises:
        InvalidRequest: they are none.
    """
    shares: dict[str, float] = {}
    for each in text.split(","):
        name, _, share = each.strip().partition("=")
        try:
            value = float(share)
        except ValueError:
            value = 0.0
        if not _NAME.match(name) or name in shares or not 0 < value <= 1:
            raise InvalidRequest(
                f"{each.strip()[:40]!r} is no part.", "Give them as train=0.9,validation=0.1.", "parts"
            )
        shares[name] = value
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise InvalidRequest(
            f"The shares add up to {sum(shares.values()):g}, not to 1.",
            "Give them as train=0.9,validation=0.1.",
            "parts",
        )
    return shares


def part_of(digest: bytes, shares: Mapping[str, float], seed: int) -> str:
    """The part to which the picture of this hash belongs; the same one whatever else there is, and for each copy."""
    mixed = hashlib.sha256(seed.to_bytes(16, "big", signed=True) + digest).digest()
    place, reached = int.from_bytes(mixed[:8], "big") / _STEPS, 0.0
    for name, share in shares.items():
        reached += share
        if place < reached:
            return name
    return list(shares)[-1]


def part(
    source: Path,
    pictures: Iterable[Picture],
    destination: Path,
    shares: Mapping[str, float],
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Parted:
    """Write the pictures of `source` into a folder for each part under `destination`, each with a metadata.jsonl of
    their captions and of what else a list says of them. Files are linked where the disk allows it, and
    copied elsewhere.

    Raises:
        DatasetError: `destination` is in use or within `source`.
        StorageFailed: it cannot be written.
    """
    if destination.resolve().is_relative_to(source.resolve()):
        raise DatasetError(f"{destination.name!r} lies in {source.name!r}.", "Choose a folder beside it.")
    told = _told(source)
    lines: dict[str, list[str]] = {name: [] for name in shares}
    with whole_folder(destination) as folder:
        with storage_errors(destination):
            for name in shares:
                (folder / name).mkdir()
        for number, picture in enumerate(pictures, start=1):
            name = part_of(picture.digest, shares, seed)
            kept = picture.name.replace("/", "--")
            with storage_errors(folder / name / kept):
                _link(source / picture.name, folder / name / kept)
            row = told.get(picture.name, {})
            lines[name].append(json.dumps({**row, "file_name": kept}, ensure_ascii=False))
            on_progress(number)
        for name, rows in lines.items():
            text = "".join(f"{row}\n" for row in rows)
            atomic_write(folder / name / LISTS[0], text.encode("utf-8", "replace"))
    return Parted(folder=destination, counts={name: len(rows) for name, rows in lines.items()})


def _told(source: Path) -> dict[str, dict[str, Any]]:
    """What is known of each picture: all that a metadata.jsonl says, else its caption."""
    told = {
        found.name: {"file_name": found.name, "text": found.caption} for found in _found(source) if found.remark is None
    }
    listing = list_of(source.resolve())
    if listing is not None and listing.suffix != ".csv":
        for line in io.StringIO(read_list(listing), newline=None):
            if name := name_in(line):
                told[name] = {**json.loads(line)}
    return told


def _found(source: Path) -> Sequence[Found]:
    return [each for each in found_in(source) if isinstance(each, Found)]


def _link(source: Path, target: Path) -> None:
    if target.exists():
        raise FileExistsError(17, "two pictures would have one name")
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
