"""Folders of pocket scenes, rows of shards, and what shards say."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from engines.pocket.sampling import sample_scene
from engines.pocket.world import render
from studio.captions.merging import Chosen
from studio.captions.shards import Reading
from studio.domain.captions import Row, Status

AT = "2026-11-27T12:00:{:09.6f}Z"


def scenes(folder: Path, count: int, size: int = 64, seed: int = 0) -> list[Path]:
    """So many pictures, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = [folder / f"{number:04}.png" for number in range(count)]
    for number, path in enumerate(paths):
        render(sample_scene(rng), number, size).save(path)
    return paths


def digest(what: str | bytes | Path) -> bytes:
    if isinstance(what, Path):
        return hashlib.sha256(what.read_bytes()).digest()
    return hashlib.sha256(what.encode("utf-8", "surrogatepass") if isinstance(what, str) else what).digest()


def row(what: str, caption: str = "a red ring on a white ground", second: float = 0.0, **more: object) -> Row:
    """A row for the picture called and made of `what`."""
    values = {
        "digest": digest(what), "name": f"{what}.png", "status": Status.DONE, "caption": caption, "reason": "",
        "captioner": "test", "template": "t", "at": AT.format(second), **more,
    }  # fmt: skip
    return Row(**values)


def written(path: Path, rows: Iterable[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(each.line() for each in rows))
    return path


def chosen_in(*folders: Path) -> tuple[Chosen, Reading]:
    """What shards come to."""
    reading, chosen = Reading(folders=folders), Chosen()
    for each in reading.rows():
        chosen.add(each)
    return chosen, reading
