"""The rows of a data set on the hub, in order: pictures with captions, however the repository keeps them.

Parquet files are read where they are, column by column; pictures lie beside `metadata.jsonl`, `metadata.csv` or text
files; for whatever else there is, the hub may have a conversion to parquet. No script of a data set is run, no pickle
opened, and no path that one names leads anywhere but to a file of its own repository.
"""

import csv
import io
import json
import logging
import posixpath
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import pyarrow as pa
from pyarrow.parquet import ParquetFile

from engines.hub import HubFile
from engines.hub_files import Unusable
from engines.hub_repository import INSTEAD, Repository
from studio.domain.datasets import CAPTION_KEYS, CAPTIONS, PICTURES
from studio.domain.errors import DatasetError

logger = logging.getLogger(__name__)

CONVERSION = "refs/convert/parquet"
"""The revision at which the hub keeps what it converts."""
MAX_PICTURE_BYTES = 100_000_000
_LISTS = ("metadata.jsonl", "metadata.csv")
_NAME_KEY = "file_name"
_TRAIN = re.compile(r"(^|[/._-])train([/._-]|$)", re.IGNORECASE)
BLOCK_BYTES = 1 << 22
"""How much of a column is read at a time: of a large group of rows only what is wanted."""
_BATCH_ROWS = 8
_MAX_LINE = 1_000_000
_MAX_TEXT_BYTES = 100_000


@dataclass(frozen=True, kw_only=True)
class Row:
    """A caption, "" where there is none, and how to get its picture's bytes; None where there are none."""

    caption: str
    picture: Callable[[], bytes | None]


class Rows(Protocol):
    """A data set in order. `commit` is what it is read at: another commit may have other rows."""

    @property
    def commit(self) -> str: ...

    def rows(self, start: int) -> Iterator[Row]:
        """The rows from the one numbered `start`; those before it are not fetched."""
        ...


def rows_of(repository: Repository) -> Rows:
    """How the pictures and captions of `repository` are read.

    Raises:
        DatasetError: there are none in a form that is known here.
        DownloadFailed: as `Repository` does.
    """
    commit = repository.commit()
    files = repository.files(commit)
    if found := _parquet(files):
        return ParquetRows(repository=repository, commit=commit, files=found)
    pictures = PictureRows(repository=repository, commit=commit, files=files)
    if pictures.is_any:
        return pictures
    try:
        commit = repository.commit(CONVERSION)
        found = _parquet(repository.files(commit))
    except Unusable:
        found = []
    if found:
        return ParquetRows(repository=repository, commit=commit, files=found)
    raise DatasetError(
        f"{repository.hub_id} has no pictures with captions in a form that can be read: parquet files, or pictures "
        "beside metadata.jsonl, metadata.csv or text files.",
        f"Choose another data set, or download it yourself and {INSTEAD}.",
    )


@dataclass(frozen=True, kw_only=True)
class ParquetRows:
    """Those of parquet files, one after the other."""

    repository: Repository
    commit: str
    files: Sequence[HubFile]

    def rows(self, start: int) -> Iterator[Row]:
        """See `Rows.rows`.

        Raises:
            DatasetError: the first file has no column of pictures or of captions, or a file cannot be read.
        """
        for index, file in enumerate(self.files):
            with _readable(self.repository.hub_id, file), self._opened(file) as parquet:
                columns = self._columns(parquet, file, is_needed=index == 0)
                if columns is None:
                    continue
                yield from _rows_in(parquet, columns, start)
                start = max(0, start - parquet.metadata.num_rows)

    def _opened(self, file: HubFile) -> ParquetFile:
        return ParquetFile(self.repository.open(file), buffer_size=BLOCK_BYTES, pre_buffer=False)

    def _columns(self, parquet: ParquetFile, file: HubFile, *, is_needed: bool) -> tuple[str, str] | None:
        schema = parquet.schema_arrow
        picture = next((field.name for field in schema if _holds_pictures(field.type)), None)
        texts = [field.name for field in schema if _holds_text(field.type)]
        caption = next((name for name in CAPTION_KEYS if name in texts), texts[0] if len(texts) == 1 else None)
        if picture is not None and caption is not None:
            return picture, caption
        if not is_needed:
            logger.warning("%s of %s has other columns and is left out", file.path, self.repository.hub_id)
            return None
        missing = "pictures (bytes)" if picture is None else "captions (text, caption or prompt)"
        raise DatasetError(
            f"{self.repository.hub_id} has no column of {missing}; its columns are {_named(schema)}.",
            f"Choose another data set, or {INSTEAD}.",
        )


@dataclass(frozen=True, kw_only=True)
class PictureRows:
    """Those of pictures that are files of the repository, with captions in lists or in text files beside them."""

    repository: Repository
    commit: str
    files: Mapping[str, HubFile]

    @property
    def is_any(self) -> bool:
        """Whether there are pictures with captions at all."""
        return bool(self._pictures() and (self._lists() or any(self._text_of(path) for path in self._pictures())))

    def rows(self, start: int) -> Iterator[Row]:
        """See `Rows.rows`."""
        return islice(self._listed() if self._lists() else self._beside(), start, None)

    def _pictures(self) -> list[str]:
        return _of_training(path for path in self.files if path.lower().endswith(PICTURES))

    def _lists(self) -> list[str]:
        names = (_of_training(path for path in self.files if posixpath.basename(path) == name) for name in _LISTS)
        return next(filter(None, names), [])

    def _text_of(self, path: str) -> HubFile | None:
        stem = posixpath.splitext(path)[0]
        return next(filter(None, (self.files.get(f"{stem}{suffix}") for suffix in CAPTIONS)), None)

    def _beside(self) -> Iterator[Row]:
        for path in self._pictures():
            if text := self._text_of(path):
                yield Row(caption=self._read_text(text), picture=partial(self._read, path))

    def _listed(self) -> Iterator[Row]:
        for path in self._lists():
            for entry in self._entries(path):
                # Joined as a word of the listing: what leads out of the repository is not in it.
                name = posixpath.normpath(posixpath.join(posixpath.dirname(path), str(entry.get(_NAME_KEY))))
                yield Row(caption=_caption_of(entry), picture=partial(self._read, name))

    def _entries(self, path: str) -> Iterator[Mapping[str, Any]]:
        raw = io.BufferedReader(self.repository.open(self.files[path]), BLOCK_BYTES)
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="")
        lines = iter(partial(text.readline, _MAX_LINE), "")
        if path.endswith(".csv"):
            yield from _csv_entries(lines)
        else:
            yield from (_json_entry(line) for line in lines if line.strip())

    def _read(self, path: str) -> bytes | None:
        file = self.files.get(path)
        is_picture = file is not None and path.lower().endswith(PICTURES) and file.size <= MAX_PICTURE_BYTES
        return self.repository.read(file) if file is not None and is_picture else None

    def _read_text(self, file: HubFile) -> str:
        return self.repository.read(file, 0, _MAX_TEXT_BYTES).decode("utf-8-sig", errors="replace")


def _parquet(files: Mapping[str, HubFile]) -> list[HubFile]:
    found = (path for path in files if path.endswith(".parquet") and posixpath.basename(path) != "metadata.parquet")
    return [files[path] for path in _of_training(found)]


def _of_training(paths: Iterable[str]) -> list[str]:
    """In order; only those of the training split, where names tell of one."""
    ordered = sorted(paths)
    return [path for path in ordered if _TRAIN.search(path)] or ordered


def _rows_in(parquet: ParquetFile, columns: tuple[str, str], skip: int) -> Iterator[Row]:
    """The rows of a file after the first `skip`, a group of rows after the other."""
    for group in range(parquet.num_row_groups):
        count = parquet.metadata.row_group(group).num_rows
        if skip < count:
            yield from islice(_rows_of_group(parquet, group, columns), skip, None)
        skip = max(0, skip - count)


def _rows_of_group(parquet: ParquetFile, group: int, columns: tuple[str, str]) -> Iterator[Row]:
    wanted = list(dict.fromkeys(columns))
    for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=wanted, use_threads=False):
        pictures, captions = (batch.column(name) for name in columns)
        for index in range(batch.num_rows):
            yield Row(caption=_text_of(captions[index]), picture=partial(_bytes_of, pictures[index]))


def _bytes_of(scalar: pa.Scalar) -> bytes | None:
    value = scalar.as_py()
    data = value.get("bytes") if isinstance(value, dict) else value
    return data if data and len(data) <= MAX_PICTURE_BYTES else None


def _text_of(scalar: pa.Scalar) -> str:
    try:
        value = scalar.as_py()
    except UnicodeDecodeError:
        return ""
    texts = value if isinstance(value, list) else [value]
    return next((text for text in texts if text), "")


def _holds_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_binary(field.type) for field in kind)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _named(schema: pa.Schema) -> str:
    shown = [f"{name[:40]!r}" for name in schema.names[:12]]
    return ", ".join(shown) + (f" and {len(schema.names) - 12} more" if len(schema.names) > 12 else "")


@contextmanager
def _readable(hub_id: str, file: HubFile) -> Generator[None]:
    """Turn what arrow says about a file into a sentence. What the hub refuses comes as a DownloadFailed already."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        logger.warning("%s of %s cannot be read: %s", file.path, hub_id, error)
        raise DatasetError(
            f"{posixpath.basename(file.path)} of {hub_id} cannot be read: it is no whole parquet file.",
            f"Choose another data set, or {INSTEAD}.",
        ) from error


def _json_entry(line: str) -> Mapping[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def _csv_entries(lines: Iterator[str]) -> Iterator[Mapping[str, Any]]:
    reader = csv.DictReader(lines)
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            logger.warning("a line of metadata.csv is left out: %s", error)
            yield {}


def _caption_of(entry: Mapping[str, Any]) -> str:
    """The text under one of the usual names, or else the only one there is."""
    texts = {key: value for key, value in entry.items() if key != _NAME_KEY and isinstance(value, str) and value}
    named = next((texts[key] for key in CAPTION_KEYS if key in texts), "")
    return named or (next(iter(texts.values())) if len(texts) == 1 else "")
