"""Data sets as others lay them out, gathered in one folder of pictures with a list that says whose each is."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import laplace

from studio.captions.pictures import digest_of
from studio.dataset_files import check_free, whole_folder
from studio.dataset_layouts import LAYOUTS, Candidate, SourceLayout
from studio.dataset_scan import Unusable, open_picture
from studio.domain.datasets import LISTS, counted
from studio.domain.errors import DatasetError, InvalidRequest
from studio.files import atomic_write, storage_errors

_SHARPNESS_SIDE = 256


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What is taken: `min_size` pixels of the shorter side, at most `max_aspect` times as long as wide or the other way
    round, at least so sharp (see `sharpness`), and of what is left a `sample` drawn by `seed`, None for all."""

    min_size: int = 1
    max_aspect: float = 3.0
    min_sharpness: float = 0.0
    sample: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What was gathered; `left_out` counts pictures by the reason."""

    folder: Path
    num_pictures: int
    num_captions: int
    left_out: dict[str, int]

    @property
    def summary(self) -> str:
        told = f"{counted(self.num_pictures, 'picture')} gathered, {self.num_captions} with a caption"
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))
        return f"{told}; left out: {why}." if why else f"{told}."


def collect(
    source: Path,
    destination: Path,
    layout: str,
    filters: Filters | None = None,
    licence: str = "",
    on_progress: Callable[[int], None] = lambda taken: None,
) -> Collected:
    """Gather the pictures of a data set that pass the filters in a new folder `destination`, under numbers in order of
    their names, with a metadata.jsonl that has for each where it came from, its licence, its author where that is
    known, and its caption where it comes with one. Their files are linked where the disk allows it, else copied, and
    not changed. `licence` goes before what the layout says. A sample is the same whenever the same pictures are there.

    Raises:
        InvalidRequest: there is no such layout, or a filter that nothing can pass.
        DatasetError: nothing passes, or `destination` is in use or within `source`.
        StorageFailed: it cannot be written.
    """
    filters = filters or Filters()
    _check(source, destination, layout, filters)
    check_free(destination, replace=False)
    known = LAYOUTS[layout]
    taken, left_out = _taken(known.candidates(source), filters, on_progress)
    if not taken:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())) or "it holds no pictures"
        raise DatasetError(
            f"No picture of {source.name!r} can be used: {why}.", "Loosen the filters, or look elsewhere."
        )
    taken.sort(key=lambda candidate: candidate.name)
    digits = max(6, len(str(len(taken) - 1)))
    rows: list[str] = []
    with whole_folder(destination) as folder:
        for number, candidate in enumerate(taken):
            name = f"{number:0{digits}}{candidate.path.suffix.lower()}"
            with storage_errors(folder / name):
                _link(candidate.path, folder / name)
            rows.append(json.dumps(_row(name, candidate, known, licence), ensure_ascii=False) + "\n")
        atomic_write(folder / LISTS[0], "".join(rows).encode("utf-8", "replace"))
    captions = sum(bool(candidate.caption) for candidate in taken)
    return Collected(folder=destination, num_pictures=len(taken), num_captions=captions, left_out=dict(left_out))


def sharpness(path: Path) -> tuple[tuple[int, int], float]:
    """The size of a picture, and how sharp it is: the standard deviation of its Laplacian in grey, at 256 pixels of the
    longer side. Blurred photographs have 1 to 4, usual ones 8 to 30.

    Raises:
        Unusable: it cannot be opened.
    """
    image = open_picture(path).image
    small = image.convert("L")
    small.thumbnail((_SHARPNESS_SIDE, _SHARPNESS_SIDE))
    return image.size, float(np.std(laplace(np.asarray(small, dtype=np.float32))))


def _taken(
    candidates: Iterator[Candidate], filters: Filters, on_progress: Callable[[int], None]
) -> tuple[list[Candidate], Counter[str]]:
    """What passes; for a sample no more are opened than it takes."""
    ordered = candidates if filters.sample is None else iter(sorted(candidates, key=_place_by(filters.seed)))
    taken: list[Candidate] = []
    left_out: Counter[str] = Counter()
    seen: set[bytes] = set()
    for candidate in ordered:
        if filters.sample is not None and len(taken) == filters.sample:
            break
        objection = candidate.objection or _objection(candidate.path, filters, seen)
        if objection:
            left_out[objection] += 1
        else:
            taken.append(candidate)
            on_progress(len(taken))
    return taken, left_out


def _place_by(seed: int) -> Callable[[Candidate], bytes]:
    """An order that looks like chance, and in which each picture stays where it is whatever others there are."""
    return lambda candidate: hashlib.sha256(f"{seed}:{candidate.name}".encode("utf-8", "surrogateescape")).digest()


def _objection(path: Path, filters: Filters, seen: set[bytes]) -> str:
    digest = digest_of(path)
    if digest is None or not _is_text(path):
        return "cannot be read"
    if digest in seen:
        return "the same as another"
    try:
        (width, height), sharp = sharpness(path)
    except Unusable as error:
        return str(error.remark.finding).replace("_", " ")
    if min(width, height) < filters.min_size:
        return "too small"
    if max(width, height) > filters.max_aspect * min(width, height):
        return "too long or too wide"
    if sharp < filters.min_sharpness:
        return "not sharp"
    seen.add(digest)
    return ""


def _row(name: str, candidate: Candidate, layout: SourceLayout, licence: str) -> dict[str, Any]:
    usual = {"dataset": layout.title, "licence": layout.licence, "licence_url": layout.licence_url}
    told = {**usual, **candidate.about, **({"licence": licence} if licence else {})}
    told = {key: value for key, value in told.items() if value}
    text = {"text": candidate.caption} if candidate.caption else {}
    return {"file_name": name, **text, "original": candidate.name, **told}


def _check(source: Path, destination: Path, layout: str, filters: Filters) -> None:
    if layout not in LAYOUTS:
        raise InvalidRequest(f"There is no layout {layout!r}.", f"Choose {', '.join(LAYOUTS)}.", "layout_of")
    if not source.is_dir():
        raise DatasetError(f"There is no folder {source.name!r}.", "Give the folder of the data set.")
    if destination.resolve().is_relative_to(source.resolve()):
        raise DatasetError(f"{destination.name!r} lies in {source.name!r}.", "Choose a folder beside it.")
    bounds = (
        ("min_size", filters.min_size, 1), ("max_aspect", filters.max_aspect, 1),
        ("min_sharpness", filters.min_sharpness, 0), ("sample", filters.sample, 1),
    )  # fmt: skip
    for name, value, least in bounds:
        if value is not None and not value >= least:
            raise InvalidRequest(f"{value} does not work.", f"Give {least} or more.", name)


def _is_text(path: Path) -> bool:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
