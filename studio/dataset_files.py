"""Pictures with captions in a folder, however people keep them: which there are, and what is wrong with the others."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.domain.datasets import CAPTION_KEYS, CAPTIONS, MAX_CAPTION, PICTURES, caption_of
from studio.domain.errors import DatasetError


@dataclass(frozen=True, kw_only=True)
class Item:
    """A picture and what it shows."""

    path: Path
    caption: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What can be used, in order of name, and a sentence about everything that cannot."""

    items: tuple[Item, ...]
    problems: tuple[str, ...]


def read_dataset(folder: Path) -> Dataset:
    """Find the pictures in `folder` that have captions: by `metadata.jsonl`, in `images/` and `captions/`, or as text
    files of the same name beside them. Nothing outside the folder is read; pictures are not opened yet.

    Raises:
        DatasetError: there is no such folder, or nothing in it can be used.
    """
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder.name!r}.", "Give the path of a folder of pictures.")
    root = folder.resolve()
    try:
        found = list(_listed(root) if (root / "metadata.jsonl").is_file() else _beside(root))
    except OSError as error:
        raise DatasetError(f"{folder.name!r} cannot be read: {error.strerror}.", "Check its permissions.") from error
    items = tuple(each for each in found if isinstance(each, Item))
    problems = tuple(each for each in found if isinstance(each, str))
    if not items:
        more = f" The first of {len(problems)} problems: {problems[0]}" if problems else ""
        raise DatasetError(
            f"{folder.name!r} holds no picture with a caption.{more}",
            "Put a text file of the same name beside each picture, or a metadata.jsonl with file_name and text.",
        )
    return Dataset(items=items, problems=problems)


def _beside(root: Path) -> Iterator[Item | str]:
    pictures, captions = (root / "images", root / "captions") if (root / "images").is_dir() else (root, root)
    for path in sorted(path for path in pictures.iterdir() if path.suffix.lower() in PICTURES):
        texts = [captions / f"{path.stem}{suffix}" for suffix in CAPTIONS]
        text = next((text for text in texts if text.is_file()), None)
        if text is None:
            yield f"{path.name} has no caption."
        else:
            yield _item(root, path, text.read_bytes().decode("utf-8-sig", errors="replace"))


def _listed(root: Path) -> Iterator[Item | str]:
    lines = (root / "metadata.jsonl").read_bytes().decode("utf-8-sig", errors="replace").splitlines()
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            name, caption = str(entry["file_name"]), str(_first(entry, CAPTION_KEYS))
        except (ValueError, KeyError, TypeError, RecursionError):
            yield f"Line {number} of metadata.jsonl names no picture with a caption."
            continue
        if name in seen:
            yield f"Line {number} of metadata.jsonl names {name!r} again."
        else:
            seen.add(name)
            yield _item(root, root / name, caption)


def _item(root: Path, path: Path, caption: str) -> Item | str:
    caption = caption_of(caption)
    if not path.resolve().is_relative_to(root):
        return f"{path.name} lies outside the folder."
    if path.suffix.lower() not in PICTURES or not path.is_file():
        return f"{path.name} is no picture that is there."
    if not caption:
        return f"{path.name} has an empty caption, or one of more than {MAX_CAPTION:,} characters."
    return Item(path=path, caption=caption)


def _first(entry: dict[str, Any], keys: Sequence[str]) -> Any:
    """The value of the first of `keys` that has one; raises KeyError."""
    for key in keys:
        if entry.get(key):
            return entry[key]
    raise KeyError(keys[0])
