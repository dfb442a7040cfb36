"""Files of a JSON document a line, written as things happen: what a crash cut short is left out when they are read."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from studio.files import atomic_write, storage_errors

LineT = TypeVar("LineT", bound=BaseModel)


def read_lines(path: Path, line_type: type[LineT]) -> list[LineT]:
    """The lines of a file that can be read, in order; none where there is no file."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    return [line for line in (_line(text, line_type) for text in lines) if line is not None]


def append_line(path: Path, line: BaseModel, *, is_synced: bool = False) -> None:
    """Write one more line, on a new one even if the last was cut short; with `is_synced` it survives a loss of power.

    Raises:
        StorageFailed: it cannot be written, or its folder was deleted.
    """
    with storage_errors(path), path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
        is_cut = bool(end) and file.read(1) != b"\n"
        file.write(b"\n" * is_cut + line.model_dump_json().encode() + b"\n")
        if is_synced:
            file.flush()
            os.fsync(file.fileno())


def replace_lines(path: Path, lines: Iterable[BaseModel]) -> None:
    """Have the file hold exactly these. Raises StorageFailed; the old lines are intact then."""
    atomic_write(path, "".join(line.model_dump_json() + "\n" for line in lines).encode())


def _line(text: bytes, line_type: type[LineT]) -> LineT | None:
    try:
        return line_type.model_validate_json(text)
    except ValidationError:
        return None
