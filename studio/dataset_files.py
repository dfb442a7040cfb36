"""Pictures with captions in a folder, however people keep them: which there are, and what is wrong with the others."""

import csv
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from studio.domain.datasets import (
    ABOUT,
    CAPTION_KEYS,
    CAPTIONS,
    FILE_KEYS,
    LISTS,
    MAX_CAPTION,
    PICTURES,
    Finding,
    Remark,
    caption_of,
    is_mask,
)
from studio.domain.errors import DatasetError
from studio.files import PARTIAL_PREFIX, storage_errors

MAX_LIST_BYTES = 256_000_000
"""Some 300,000 pictures with a long caption each."""
MAX_TEXT_BYTES = 4 * (MAX_CAPTION + 1)
"""UTF-8 has at most four bytes a character; what is longer is too long whatever follows."""


SYSTEM_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")
"""What a file manager leaves behind."""


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


@dataclass(frozen=True, kw_only=True)
class Found:
    """A picture that is there, under the name that its folder or list has for it; `remark` says why `caption` is ""."""

    name: str
    path: Path
    caption: str
    remark: Remark | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of a list: a picture's file, its caption, and under which keys they stand."""

    line: int
    name: str
    caption: str


def read_dataset(folder: Path) -> Dataset:
    """Find the pictures in `folder` that have captions: by `metadata.jsonl`, `metadata.csv` or `captions.csv`, in
    `images/` and `captions/`, or as text files of the same name beside them. Nothing outside the folder is read;
    pictures are not opened yet.

    Raises:
        DatasetError: there is no such folder, or nothing in it can be used.
    """
    found = list(found_in(folder))
    usable = [each for each in found if isinstance(each, Found) and each.remark is None]
    problems = tuple(_problem(each) for each in found if isinstance(each, str) or each.remark is not None)
    if not usable:
        more = f" The first of {len(problems)} problems: {problems[0]}" if problems else ""
        raise DatasetError(
            f"{folder.name!r} holds no picture with a caption.{more}",
            "Put a text file of the same name beside each picture, or a metadata.jsonl with file_name and text.",
        )
    return Dataset(items=tuple(Item(path=each.path, caption=each.caption) for each in usable), problems=problems)


def found_in(folder: Path) -> tuple[Found | str, ...]:
    """Every picture that `folder` has or its list names, with its caption or why there is none; and sentences about
    what its list names in vain. Links that lead out of the folder are told and not followed.

    Raises:
        DatasetError: there is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder.name!r}.", "Give the path of a folder of pictures.")
    root = folder.resolve()
    listing = list_of(root)
    try:
        return tuple(_beside(root) if listing is None else _listed(root, listing))
    except OSError as error:
        raise DatasetError(f"{folder.name!r} cannot be read: {error.strerror}.", "Check its permissions.") from error


def list_of(root: Path) -> Path | None:
    """The file of a folder that names its pictures and captions, if it is kept that way."""
    return next((root / name for name in LISTS if is_file(root / name) and is_within(root, root / name)), None)


def about_in(folder: Path) -> dict[str, dict[str, Any]]:
    """What a folder of pictures says of each besides its caption, such as its author and licence: what stands in its
    list, or else in its `about.jsonl`. Of a picture that is named twice, the first line counts.

    Raises:
        DatasetError: it cannot be read.
    """
    root = folder.resolve()
    path = list_of(root) or root / ABOUT
    if not is_file(path) or not is_within(root, path):
        return {}
    try:
        text = read_list(path)
    except OSError as error:
        raise DatasetError(f"{path.name!r} cannot be read: {error.strerror}.", "Check its permissions.") from error
    known: dict[str, dict[str, Any]] = {}
    for _, row in _rows(path.name, text):
        told = cast(dict[str, Any], row) if isinstance(row, dict) else {}
        name = next((str(told[key]) for key in FILE_KEYS if told.get(key)), "")
        about = {key: value for key, value in told.items() if key not in (*FILE_KEYS, *CAPTION_KEYS) and value}
        if name and about:
            known.setdefault(name, about)
    return known


def picture_folder(root: Path) -> Path:
    """Where the pictures of a folder without a list are."""
    return root / "images" if has_folders(root) else root


def caption_files(root: Path, picture: Path) -> list[Path]:
    """Where the caption of a picture may be that is in no list, in the order to look."""
    folder = root / "captions" if has_folders(root) else picture.parent
    return [folder / f"{picture.stem}{suffix}" for suffix in CAPTIONS]


def is_named_picture(path: Path) -> bool:
    """Whether a file that no list names is taken for a picture by its name; the mask of one is none."""
    return path.suffix.lower() in PICTURES and not is_mask(path.name)


def has_folders(root: Path) -> bool:
    """Whether pictures and captions have folders of their own, `images/` and `captions/`."""
    return (root / "images").is_dir() and is_within(root, root / "images")


def is_within(root: Path, path: Path) -> bool:
    """Whether a path leads to a place in `root`, a resolved folder, whatever links are on the way."""
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, links in a circle
        return False


def is_file(path: Path) -> bool:
    """Whether there is a file to read: no pipe, which would never end, and no name that the system cannot have."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def entries_of(name: str, text: str) -> Iterator[Entry | str]:
    """The lines of a list of pictures, JSON or, by its `name`, a table; a sentence for each that is no entry."""
    for line, row in _rows(name, text):
        try:
            yield Entry(line=line, name=str(_first_of(row, FILE_KEYS)), caption=str(_first_of(row, CAPTION_KEYS)))
        except (KeyError, TypeError, AttributeError):
            yield f"Line {line} of {name} names no picture with a caption."


def delimiter_of(table: str) -> str:
    """What stands between the columns: a comma or, as some spreadsheets write, a semicolon."""
    header = table.partition("\n")[0]
    return ";" if ";" in header and "," not in header else ","


def read_list(path: Path) -> str:
    """The text of a list.

    Raises:
        OSError: it cannot be read.
        DatasetError: it is too long to be one.
    """
    with path.open("rb") as file:
        data = file.read(MAX_LIST_BYTES + 1)
    if len(data) > MAX_LIST_BYTES:
        raise DatasetError(
            f"{path.name} has more than {MAX_LIST_BYTES / 1e6:.0f} MB.", "Make several data sets of this one."
        )
    return decoded(data)


def decoded(data: bytes) -> str:
    return data.decode("utf-8-sig", errors="replace")


@contextmanager
def whole_folder(destination: Path, *, replace: bool = False) -> Generator[Path]:
    """A new folder beside `destination`, which takes its place at the end; nothing of it stays if that is not reached.
    With `replace`, a data set that is there makes way.

    Raises:
        DatasetError: `destination` is a file, or holds something, or with `replace` more than pictures and captions.
        StorageFailed: it cannot be written.
    """
    destination = Path(os.path.abspath(destination))
    check_free(destination, replace=replace)
    partial = destination.with_name(f"{PARTIAL_PREFIX}-{secrets.token_hex(8)}")
    with storage_errors(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    try:
        yield partial
        check_free(destination, replace=replace)
        with storage_errors(destination):
            _move_into_place(partial, destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(destination: Path, *, replace: bool) -> None:
    """See `whole_folder`. What `replace` may delete is only what looks like a data set: a slip such as the path of
    one's home must not cost it.

    Raises:
        DatasetError: as `whole_folder` says.
    """
    if not os.path.lexists(destination):
        return
    if destination.is_symlink() or not destination.is_dir():
        raise DatasetError(f"{destination.name!r} is no folder.", "Choose another place for the data set.")
    with storage_errors(destination):
        inside = sorted(destination.iterdir())
    if inside and not replace:
        raise DatasetError(
            f"{destination.name!r} holds {inside[0].name!r} already; a data set needs a folder of its own.",
            "Choose another one, or say that it is to be replaced.",
        )
    foreign = next((path for path in inside if not _is_of_dataset(path)), None)
    if foreign is not None:
        raise DatasetError(
            f"{destination.name!r} holds {foreign.name!r}, no picture and no caption; it is not replaced.",
            "Choose another folder, or empty this one yourself.",
        )


def _is_of_dataset(path: Path) -> bool:
    is_known = path.suffix.lower() in (*PICTURES, *CAPTIONS) or path.name in (*LISTS, ABOUT, *SYSTEM_FILES)
    return is_known and not path.is_dir()


def _move_into_place(partial: Path, destination: Path) -> None:
    if not destination.exists():
        os.rename(partial, destination)
        return
    old = partial.with_name(f"{partial.name}-old")
    os.rename(destination, old)
    try:
        os.rename(partial, destination)
    except BaseException:
        os.rename(old, destination)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _problem(each: Found | str) -> str:
    return each if isinstance(each, str) else each.remark.message if each.remark else ""


def _beside(root: Path) -> Iterator[Found | str]:
    for path in sorted(path for path in picture_folder(root).iterdir() if is_named_picture(path)):
        name = path.relative_to(root).as_posix()
        text = next((text for text in caption_files(root, path) if is_file(text)), None)
        if text is None:
            yield _found(root, name, None)
        elif not is_within(root, text):
            yield _lacking(root, name, f"The caption of {path.name} lies outside the folder.")
        else:
            yield _read_beside(root, name, text)


def _read_beside(root: Path, name: str, text: Path) -> Found | str:
    try:
        with text.open("rb") as file:
            return _found(root, name, decoded(file.read(MAX_TEXT_BYTES)))
    except OSError as error:
        return _lacking(root, name, f"The caption of {Path(name).name} cannot be read: {error.strerror}.")


def _listed(root: Path, listing: Path) -> Iterator[Found | str]:
    seen: set[str] = set()
    for entry in entries_of(listing.name, read_list(listing)):
        if isinstance(entry, str):
            yield entry
        elif entry.name in seen:
            yield f"Line {entry.line} of {listing.name} names {entry.name!r} again."
        else:
            seen.add(entry.name)
            yield _found(root, entry.name, entry.caption)


def _first_of(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """The value of the first of `keys` that has one; raises KeyError."""
    return row[next((key for key in keys if row.get(key)), keys[0])]


def _found(root: Path, name: str, text: str | None) -> Found | str:
    path = root / name
    if text is None:
        return _lacking(root, name, f"{path.name} has no caption.")
    if caption := caption_of(text):
        return _checked(root, Found(name=name, path=path, caption=caption))
    message = f"{path.name} has an empty caption, or one of more than {MAX_CAPTION:,} characters."
    remark = Remark(finding=Finding.EMPTY_CAPTION, message=message)
    return _checked(root, Found(name=name, path=path, caption="", remark=remark))


def _lacking(root: Path, name: str, message: str) -> Found | str:
    remark = Remark(finding=Finding.NO_CAPTION, message=message)
    return _checked(root, Found(name=name, path=root / name, caption="", remark=remark))


def _checked(root: Path, found: Found) -> Found | str:
    """`found`, unless there is no such picture; one outside the folder is told before anything else about it."""
    if not is_within(root, found.path):
        message = f"{found.path.name} lies outside the folder."
        return Found(name=found.name, path=found.path, caption="", remark=_outside(message))
    if found.path.suffix.lower() not in PICTURES or not is_file(found.path):
        return f"{found.path.name} is no picture that is there."
    return found


def _outside(message: str) -> Remark:
    return Remark(finding=Finding.OUTSIDE, message=message)


def _rows(name: str, text: str) -> Iterator[tuple[int, Any]]:
    """The rows of a list, each with the number of its line: JSON or, by its `name`, a table."""
    return _table(text) if name.endswith(".csv") else _json_lines(text)


def _json_lines(text: str) -> Iterator[tuple[int, Any]]:
    # Only these end a line: str.splitlines would also break a caption at U+2028, which JSON may hold as it is.
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError):
            yield number, None


def _table(text: str) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), skipinitialspace=True)
    while True:
        try:
            row = next(reader)
            yield reader.line_num, {str(key).strip().lower(): value for key, value in row.items()}
        except csv.Error:  # a field that is too long
            yield reader.line_num, None
        except StopIteration:
            return
