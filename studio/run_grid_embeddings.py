"""What a judge makes of a grid's pictures and of those that its run learnt: made once, kept in the grid's folder."""

import io
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from engines.base import never
from studio.diversity import Vector
from studio.domain.errors import DatasetError
from studio.domain.images import ImageRecord
from studio.domain.run_grid import plain_prompt
from studio.files import atomic_write
from studio.gallery import Gallery
from studio.scoring import ScoringService
from studio.training import training_items

MOST_TRAINING = 500
"""Training pictures that are looked at; of more, every second, third, … one."""
_PICTURE, _TRAINING = "picture ", "training "
"""What names of the kept vectors begin with."""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Embeddings by one judge: `cells` by the index of a grid's cell, those of training pictures by their names, and
    the `captions` that these have."""

    cells: Mapping[int, Vector]
    training: Mapping[str, Vector]
    captions: frozenset[str] = frozenset()

    def is_caption(self, prompt: str) -> bool:
        """See the function of that name."""
        return is_caption(prompt, self.captions)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What a file holds: `judge` tells which files made the vectors, which are by their names."""

    judge: str = ""
    vectors: Mapping[str, Vector]
    captions: frozenset[str] = frozenset()


class GridEmbeddings:
    """Fills and reads such files: of their arrays `names` and `vectors` (number, dimensions) belong together."""

    def __init__(self, gallery: Gallery, scoring: ScoringService) -> None:
        self._gallery = gallery
        self._scoring = scoring
        self._lock = threading.Lock()

    def read(self, path: Path, pictures: Mapping[int, ImageRecord]) -> Likeness:
        """What is kept at `path` of the pictures in a grid, which are by the index of their cell."""
        found = _read(path)
        kept = found.vectors
        names = {index: f"{_PICTURE}{record.id}" for index, record in pictures.items()}
        return Likeness(
            cells={index: kept[name] for index, name in names.items() if name in kept},
            training={name.split(" ", 2)[2]: kept[name] for name in kept if name.startswith(_TRAINING)},
            captions=found.captions,
        )

    def fill(
        self,
        path: Path,
        judge: Path,
        pictures: Mapping[int, ImageRecord],
        training: Path,
        *,
        most: int | None = None,
        cancelled: Callable[[], bool] = never,
    ) -> bool:
        """Have the judge in a folder see what is missing at `path`: of a grid's pictures and of those in the folder
        `training`, `most` of them at a time. Whether everything is there now that can be had. What another judge made,
        or this one of other weights, is made again; where the folder is gone, what is known of its pictures stays.

        Raises:
            StorageFailed: it cannot be kept.
        """
        with self._lock:
            key = _key(judge)
            found = _read(path)
            kept: Mapping[str, Vector] = found.vectors if found.judge == key else {}
            learnt, captions = _learnt(training, found)
            wanted = {**self._drawn(pictures), **learnt}
            missing = [name for name in wanted if name not in kept]
            new = dict(self._seen(judge, {name: wanted[name] for name in missing[:most]}, cancelled))
            vectors = {name: vector for name, vector in {**kept, **new}.items() if name in wanted}
            if new or len(vectors) < len(kept):
                atomic_write(path, _packed(_Kept(judge=key, vectors=vectors, captions=captions)))
            return len(missing) <= (most or len(missing)) or not new

    def _drawn(self, pictures: Mapping[int, ImageRecord]) -> dict[str, Path]:
        return {f"{_PICTURE}{record.id}": self._gallery.path(record) for record in pictures.values()}

    def _seen(
        self, judge: Path, places: Mapping[str, Path], cancelled: Callable[[], bool]
    ) -> Iterator[tuple[str, Vector]]:
        for name, place in places.items():
            if cancelled():
                return
            vector = self._scoring.embed_file(judge, place)
            if vector is not None:
                yield name, vector


def _learnt(folder: Path, kept: _Kept) -> tuple[dict[str, Path], frozenset[str]]:
    """The training pictures, by names that are others when the pictures are, and the captions of all."""
    try:
        paths, captions = training_pictures(folder)
    except DatasetError:
        return {name: folder for name in kept.vectors if name.startswith(_TRAINING)}, kept.captions
    return {f"{_TRAINING}{_stamp(path)} {path.relative_to(folder)}": path for path in paths}, captions


def training_pictures(folder: Path) -> tuple[list[Path], frozenset[str]]:
    """The pictures in a training's folder that are looked at, and the captions of all of them.

    Raises:
        DatasetError: there is no such folder, or nothing in it can be learnt from.
    """
    items = training_items(folder)
    paths = [path for path, _ in items][:: -(-len(items) // MOST_TRAINING)]
    return [path for path in paths if path.is_file()], frozenset(plain_prompt(text) for _, text in items if text)


def is_caption(prompt: str, captions: Collection[str]) -> bool:
    """Whether a prompt asks for what a training picture shows, to the letter, with a trigger word before it or
    without."""
    return prompt in captions or prompt.partition(", ")[2] in captions


def _key(judge: Path) -> str:
    """What else than the pictures decides about vectors: the files of the judge."""
    files = sorted(path for path in judge.glob("*.*") if path.suffix in (".json", ".toml", ".safetensors"))
    return " ".join([judge.name, *(f"{path.name}:{_stamp(path)}" for path in files)])


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def _packed(kept: _Kept) -> bytes:
    file = io.BytesIO()
    rows = np.asarray(list(kept.vectors.values()), dtype=np.float32)
    names, captions = (np.array(words, dtype=str) for words in (list(kept.vectors), sorted(kept.captions)))
    np.savez(file, judge=np.array(kept.judge), names=names, vectors=rows, captions=captions)
    return file.getvalue()


def _read(path: Path) -> _Kept:
    """What is kept; nothing where there is none, or none that can be read."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            vectors: dict[str, Vector] = dict(zip(kept["names"].tolist(), kept["vectors"], strict=True))
            return _Kept(judge=str(kept["judge"]), vectors=vectors, captions=frozenset(kept["captions"].tolist()))
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):
        return _Kept(vectors={})
