"""The captions of a data set: kept where the data set has them, and changed many at a time."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.dataset_files import caption_files, delimiter_of, is_file, is_within, list_of, read_list
from studio.domain.datasets import (
    ABOUT,
    CAPTION_KEYS,
    CAPTIONS,
    FILE_KEYS,
    LISTS,
    MAX_CAPTION,
    PICTURES,
    Layout,
    caption_of,
)
from studio.domain.errors import DatasetError, InvalidRequest
from studio.files import atomic_write, storage_errors


def save_captions(folder: Path, captions: Mapping[str, str]) -> None:
    """Give pictures of `folder`, by the names that a scan has for them, these captions: in its list if it has one, else
    each in a text file of its own, the one that is there or a new `.txt`. All are looked at before any is written;
    each file is old or new, never half of either. "" leaves a picture without words.

    Raises:
        DatasetError: a name is none of a picture there, a caption is too long, or two pictures share a file.
        StorageFailed: a file cannot be read or written.
    """
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder.name!r}.", "Give the path of a folder of pictures.")
    root = folder.resolve()
    lines = {name: _line(root, name, caption) for name, caption in captions.items()}
    listing = list_of(root)
    if listing is None:
        for path, caption in _text_files(root, lines).items():
            atomic_write(path, f"{caption}\n".encode())
        return
    with storage_errors(listing):
        text = read_list(listing)
    rewritten = _table_with(text, lines) if listing.suffix == ".csv" else _json_lines_with(text, lines)
    atomic_write(listing, rewritten.encode())


def write_captions(
    folder: Path, captions: Mapping[str, str], layout: Layout, about: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write the captions of the pictures of a new folder, by their names, and what else is known `about` them.

    Raises:
        StorageFailed: they cannot be written.
    """
    about = about or {}
    known = "".join(json.dumps({"file_name": name, **told}, ensure_ascii=False) + "\n" for name, told in about.items())
    if layout == "metadata":
        atomic_write(folder / LISTS[0], _json_lines_with(known, captions).encode("utf-8", "replace"))
        return
    if known:
        atomic_write(folder / ABOUT, known.encode("utf-8", "replace"))
    for name, caption in captions.items():
        atomic_write((folder / name).with_suffix(CAPTIONS[0]), f"{caption}\n".encode())


def prefixed(captions: Mapping[str, str], trigger: str) -> dict[str, str]:
    """Every caption with `trigger` before it and a comma between. One that begins with it stays, in capitals or not:
    the text encoders read small letters only.

    Raises:
        InvalidRequest: the trigger says nothing.
    """
    trigger = _trigger(trigger)
    begins = re.compile(rf"{re.escape(trigger)}(?!\w)", re.IGNORECASE)
    return {
        name: caption if begins.match(caption) else ", ".join(filter(None, [trigger, caption]))
        for name, caption in captions.items()
    }


def with_trigger_removed(captions: Mapping[str, str], trigger: str) -> dict[str, str]:
    """Every caption without the word or words of `trigger`, wherever they stand, and without the comma after them.

    Raises:
        InvalidRequest: the trigger says nothing.
    """
    word = re.compile(rf"(?<!\w){re.escape(_trigger(trigger))}(?!\w)\s*,?\s*", re.IGNORECASE)
    return {
        name: caption_of(word.sub("", caption)).rstrip(" ,") if word.search(caption) else caption
        for name, caption in captions.items()
    }


def replaced(captions: Mapping[str, str], find: str, replace: str, *, is_case_sensitive: bool = True) -> dict[str, str]:
    """Every caption with `replace` for each `find`; both are plain text.

    Raises:
        InvalidRequest: there is nothing to find.
    """
    if not find:
        raise InvalidRequest("There is nothing to find.", "Give the words that are to be replaced.", "find")
    pattern = re.compile(re.escape(find), 0 if is_case_sensitive else re.IGNORECASE)
    return {
        name: " ".join(pattern.sub(lambda _: replace, caption).split()) if pattern.search(caption) else caption
        for name, caption in captions.items()
    }


def _trigger(text: str) -> str:
    trigger = caption_of(text).strip(" ,")
    if not trigger:
        raise InvalidRequest("The trigger word is empty.", "Give a word that captions do not have yet.", "trigger")
    return trigger


def _line(root: Path, name: str, caption: str) -> str:
    """A caption as one line, once it is sure that it may be written."""
    path = root / name
    if path.suffix.lower() not in PICTURES or not is_file(path) or not is_within(root, path):
        raise DatasetError(f"{name[:80]!r} is no picture of {root.name!r}.", "Scan the folder again.")
    if caption.strip() and not caption_of(caption):
        raise DatasetError(
            f"The caption of {path.name} has {len(caption):,} characters; at most {MAX_CAPTION:,} are read.",
            "Shorten it.",
        )
    return caption_of(caption)


def _text_files(root: Path, captions: Mapping[str, str]) -> dict[Path, str]:
    found: dict[Path, str] = {}
    for name, caption in captions.items():
        places = caption_files(root, root / name)
        path = next((place for place in places if is_file(place)), places[0])
        if not is_within(root, path.parent):
            raise DatasetError(
                f"The captions of {root.name!r} lie outside the folder.", "Move the folder of captions into it."
            )
        if found.setdefault(path, caption) != caption:
            raise DatasetError(
                f"{Path(name).name} shares {path.name} with another picture, which was given other words.",
                "Rename one of the pictures.",
            )
    return found


def _json_lines_with(text: str, captions: Mapping[str, str]) -> str:
    """The lines of a metadata.jsonl with other captions; whatever else they say stays, and so do lines that say
    nothing. Pictures that it does not name come at the end."""
    waiting = dict(captions)
    lines: list[str] = []
    for line in io.StringIO(text, newline=None):
        name = name_in(line)
        if name in waiting:
            row = json.loads(line)
            line = json.dumps({**row, _key(row, CAPTION_KEYS): waiting.pop(name)}, ensure_ascii=False)
        lines.append(line.rstrip("\n"))
    lines += [json.dumps({"file_name": name, "text": caption}, ensure_ascii=False) for name, caption in waiting.items()]
    return "".join(f"{line}\n" for line in lines)


def name_in(line: str) -> str:
    """The picture that a line names, whether or not it has a caption yet; "" if it names none."""
    try:
        row = json.loads(line)
        return str(row[_key(row, FILE_KEYS)])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


def _key(row: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Which of `keys` a row has, one with a value before others; the first where it has none."""
    return next((key for key in keys if row.get(key)), next((key for key in keys if key in row), keys[0]))


def _table_with(text: str, captions: Mapping[str, str]) -> str:
    """A table with other captions; its columns and other rows stay."""
    delimiter = delimiter_of(text)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error as error:
        raise DatasetError(f"The list of captions cannot be read: {error}.", "Mend or remove that row.") from error
    columns = [column.strip().lower() for column in rows[0]] if rows else []
    named = next((columns.index(key) for key in FILE_KEYS if key in columns), None)
    told = next((columns.index(key) for key in CAPTION_KEYS if key in columns), None)
    if named is None or told is None:
        raise DatasetError("The list of captions has no header of file_name and text.", "Put one in its first line.")
    waiting = dict(captions)
    for row in rows[1:]:
        row += [""] * (len(columns) - len(row))
        row[told] = waiting.pop(row[named], row[told])
    for name, caption in waiting.items():
        rows.append([name if at == named else caption if at == told else "" for at in range(len(columns))])
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return written.getvalue()
