"""The pictures of a folder that are to have captions, and what their files hold."""

import hashlib
import io
import os
import posixpath
from collections.abc import Callable, Iterator
from pathlib import Path

from studio.dataset_captions import name_in
from studio.dataset_files import entries_of, is_file, is_named_picture, is_within, list_of, picture_folder, read_list
from studio.domain.captions import Picture
from studio.domain.datasets import PICTURES
from studio.domain.errors import DatasetError


def names_in(folder: Path) -> list[str]:
    """The pictures of a folder by name, in order: those that lie in it, or in its `images/`, and those in folders below
    that its list names. Masks are none, and what lies elsewhere is left out.

    Raises:
        DatasetError: there is no such folder, it cannot be read, or it holds no pictures.
    """
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder.name!r}.", "Give the path of a folder of pictures.")
    root = folder.resolve()
    try:
        names = {*_lying(root, root), *_lying(root, picture_folder(root)), *_listed(root)}
    except OSError as error:
        raise DatasetError(f"{folder.name!r} cannot be read: {error.strerror}.", "Check its permissions.") from error
    if not names:
        raise DatasetError(f"{folder.name!r} holds no pictures.", "Put PNG, JPEG or WebP files into it.")
    return sorted(names)


def pictures_in(
    folder: Path, names: list[str], on_progress: Callable[[int, int], None] | None = None
) -> Iterator[Picture]:
    """`names` with the SHA-256 of their files, one after the other; a file that is gone by then is left out."""
    for number, name in enumerate(names, start=1):
        digest = digest_of(folder / name)
        if digest is not None:
            yield Picture(name, digest)
        if on_progress:
            on_progress(number, len(names))


def digest_of(path: Path) -> bytes | None:
    """The SHA-256 of a file; None where it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def _lying(root: Path, folder: Path) -> Iterator[str]:
    above = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.name)
            if not is_named_picture(path) or not _is_text(entry.name):
                continue
            if entry.is_file(follow_symlinks=False) or (is_file(folder / path) and is_within(root, folder / path)):
                yield f"{above}{entry.name}"


def _listed(root: Path) -> Iterator[str]:
    listing = list_of(root)
    if listing is None:
        return
    text = read_list(listing)
    if listing.suffix == ".csv":
        names = (entry.name for entry in entries_of(listing.name, text) if not isinstance(entry, str))
    else:
        names = map(name_in, io.StringIO(text, newline=None))
    for name in names:
        if "/" not in name or posixpath.normpath(name) != name or not _is_text(name):
            continue  # what lies in the folder itself is found there
        path = root / name
        if path.suffix.lower() in PICTURES and is_file(path) and is_within(root, path):
            yield name


def _is_text(name: str) -> bool:
    """Whether a file name can be written into a list: Linux allows bytes that are no text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
