"""The folder of adapters: list, add, rename, remove, and what their owner keeps beside them.

An adapter `<id>` is `<id>.safetensors`, with `<id>.json` (its card) and `<id>.preview.png` where they exist.
"""

import itertools
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lora_registry import png as png_file
from lora_registry.compatibility import check_numbers, check_supported, judge
from lora_registry.files import checked_id, safe_stem, storage_errors, write_whole
from lora_registry.formats import describe, read_adapter
from lora_registry.tensor_data import tensor_sha256
from lora_registry.texts import stated_sha256
from studio.domain.adapter import MAX_LORA_SCALE, Adapter, AdapterCard, AdapterEntry, AdapterTarget, Verdict
from studio.domain.errors import CorruptModel, InvalidRequest, NotFound, StudioError
from studio.domain.stamps import FileStamp, file_stamp
from studio.domain.tensors import read_header

logger = logging.getLogger(__name__)

_WEIGHTS = ".safetensors"
_CARD = ".json"
_PREVIEW = ".preview.png"
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
_MAX_PREVIEW_BYTES = 8_000_000
_MAX_CARD_BYTES = 1_000_000
_BLOCK_BYTES = 1 << 20
_MAX_VERDICTS = 8
"""How many are kept of a file; the oldest goes first."""
_EDITABLE = {
    "title": "At most 200 letters.",
    "notes": "At most 10,000 letters.",
    "trigger_words": "At most 50 words, of 100 letters each.",
    "lora_scale": f"A number from {-MAX_LORA_SCALE:g} to {MAX_LORA_SCALE:g}.",
}
"""What the owner may change of a card → what it can be."""


@dataclass(frozen=True, kw_only=True)
class Added:
    """What `AdapterStore.add` did. `is_new` is False where the same weights were in the store already."""

    entry: AdapterEntry
    is_new: bool


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What was read off a file while it had this stamp."""

    stamp: FileStamp
    adapter: Adapter | None
    problem: str
    verdicts: tuple[tuple[AdapterTarget, Verdict], ...] = ()


class AdapterStore:
    """Adapters in one folder. Whatever an id says, nothing outside that folder is read or written."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._known: dict[str, _Known] = {}
        self._lock = threading.RLock()

    def entries(self) -> tuple[AdapterEntry, ...]:
        """Every adapter in order of name, a broken one with its problem. Only headers and alphas are read, once."""
        with self._lock:
            return tuple(self._entry(adapter_id) for adapter_id in self._ids())

    def get(self, adapter_id: str) -> AdapterEntry:
        """One adapter as `entries` lists it.

        Raises:
            NotFound: there is none of that id.
        """
        with self._lock:
            self.path(adapter_id)
            return self._entry(adapter_id)

    def path(self, adapter_id: str) -> Path:
        """Where an adapter's weights lie.

        Raises:
            NotFound: there is none of that id.
        """
        path = self._place(adapter_id, _WEIGHTS)
        if not path.is_file():
            raise NotFound(f"There is no adapter called {adapter_id!r}.", "Choose one from the list.")
        return path

    def inspect(self, adapter_id: str) -> AdapterEntry:
        """One adapter with the hash of its tensors, and a note where that is not the one on record."""
        with self._lock:
            entry = self._hashed(self.get(adapter_id))
        if entry.adapter is None:
            return entry
        note = _integrity_note(entry.adapter, entry.card) or _unrecorded_note(entry.adapter, entry.card)
        return replace(entry, adapter=replace(entry.adapter, notes=entry.adapter.notes + note))

    def keys(self, adapter_id: str) -> tuple[str, ...]:
        """What an adapter's file calls its tensors, in order of name.

        Raises:
            CorruptModel: it is no safetensors file.
        """
        path = self.path(adapter_id)
        with storage_errors(path.name):
            return tuple(sorted(read_header(path).tensors))

    def judge(self, adapter_id: str, target: AdapterTarget) -> Verdict:
        """Whether an adapter can be used with `target`. Reads the whole file, once per target until it changes."""
        path = self.path(adapter_id)
        with self._lock:
            known = self._read(adapter_id)
        verdict = next((verdict for judged, verdict in known.verdicts if judged == target), None)
        if verdict is None:
            with storage_errors(path.name):
                verdict = judge(path, target)
            self._keep_verdict(adapter_id, known.stamp, target, verdict)
        with self._lock:
            entry = self._hashed(self.get(adapter_id))
        damage = _integrity_note(entry.adapter, entry.card) if entry.adapter else ()
        return replace(verdict, notes=verdict.notes + damage)

    def add(self, source: Path, name: str | None = None) -> Added:
        """Check the file at `source` and copy it into the store, under `name` or its own.

        Raises:
            CorruptModel, Incompatible: it is a pickle, damaged, or nothing that could be used with any checkpoint.
            StorageFailed: it cannot be read, or the store cannot be written.
        """
        with storage_errors(source.name):
            adapter = _admitted(source)
            with self._lock:
                twin = self._twin(adapter)
                if twin is not None:
                    return Added(entry=twin, is_new=False)
                self._root.mkdir(parents=True, exist_ok=True)
                adapter_id = self._free_id(safe_stem(_without_suffix(name or source.name)))
                self._forget(adapter_id)
                write_whole(self._place(adapter_id, _WEIGHTS), _blocks(source))
                self._write_card(adapter_id, AdapterCard(tensor_sha256=adapter.tensor_sha256))
                return Added(entry=self._entry(adapter_id), is_new=True)

    def rename(self, adapter_id: str, name: str) -> AdapterEntry:
        """Give an adapter another file name, and so another id.

        Raises:
            InvalidRequest: another adapter has that name.
        """
        new_id = safe_stem(_without_suffix(name))
        with self._lock, storage_errors(adapter_id):
            self.path(adapter_id)
            if new_id.casefold() in {other.casefold() for other in self._ids() if other != adapter_id}:
                raise InvalidRequest(f"There is an adapter called {new_id!r} already.", "Choose another name.", "name")
            for suffix in (_CARD, _PREVIEW, _WEIGHTS):  # the weights last: renaming again mends what a crash left
                place = self._place(adapter_id, suffix)
                if place.is_file():
                    os.replace(place, self._place(new_id, suffix))
            self._known.pop(adapter_id, None)
            return self._entry(new_id)

    def remove(self, adapter_id: str) -> None:
        """Delete an adapter and what is kept beside it."""
        with self._lock, storage_errors(adapter_id):
            self.path(adapter_id).unlink()
            self._forget(adapter_id)

    def update(self, adapter_id: str, changes: Mapping[str, Any]) -> AdapterEntry:
        """Change an adapter's card: `title`, `notes`, `trigger_words`, `lora_scale`.

        Raises:
            InvalidRequest: a value that a card cannot have; `field` names it.
        """
        with self._lock:
            self.path(adapter_id)
            unknown = sorted(set(changes) - set(_EDITABLE))
            if unknown:
                raise InvalidRequest(
                    f"An adapter's card has no {unknown[0]!r}.", f"It has {', '.join(_EDITABLE)}.", unknown[0]
                )
            try:
                card = AdapterCard.model_validate({**self._card(adapter_id).model_dump(), **changes})
            except ValidationError as error:
                raise _invalid_card(error) from None
            self._write_card(adapter_id, card)
            return self._entry(adapter_id)

    def preview_path(self, adapter_id: str) -> Path | None:
        """Where an adapter's preview picture lies, or None without one."""
        self.path(adapter_id)
        path = self._place(adapter_id, _PREVIEW)
        return path if path.is_file() else None

    def set_preview(self, adapter_id: str, png: bytes | None) -> None:
        """Keep a PNG as an adapter's preview picture, without what it tells of its prompt; None removes it.

        Raises:
            InvalidRequest: it is no PNG, or larger than 8 MB.
        """
        with self._lock, storage_errors(adapter_id):
            self.path(adapter_id)
            path = self._place(adapter_id, _PREVIEW)
            if png is None:
                path.unlink(missing_ok=True)
                return
            if not png.startswith(png_file.START) or len(png) > _MAX_PREVIEW_BYTES:
                raise InvalidRequest(
                    "The preview is no PNG picture of at most 8 MB.", "Save it as a smaller PNG.", "preview"
                )
            write_whole(path, [png_file.without_texts(png)])

    def _place(self, adapter_id: str, suffix: str) -> Path:
        path = self._root / f"{checked_id(adapter_id)}{suffix}"
        if path.is_symlink() and not path.resolve().is_relative_to(self._root):
            raise NotFound(f"{path.name} is a link that leaves the adapters folder.", "Put the file itself there.")
        return path

    def _ids(self) -> list[str]:
        if not self._root.is_dir():
            return []
        with storage_errors(self._root.name):
            files = [path for path in self._root.iterdir() if path.is_symlink() or path.is_file()]
        names = [path.name.removesuffix(_WEIGHTS) for path in files if path.name.endswith(_WEIGHTS)]
        return sorted(filter(_is_id, names), key=lambda name: (name.casefold(), name))

    def _entry(self, adapter_id: str) -> AdapterEntry:
        name = f"{adapter_id}{_WEIGHTS}"
        try:
            known = self._read(adapter_id)
            card = self._card(adapter_id)
            has_preview = self._place(adapter_id, _PREVIEW).is_file()
        except StudioError as error:
            return AdapterEntry(id=adapter_id, file_name=name, problem=str(error))
        return AdapterEntry(
            id=adapter_id,
            file_name=name,
            adapter=known.adapter,
            problem=known.problem,
            card=card,
            has_preview=has_preview,
        )

    def _read(self, adapter_id: str) -> _Known:
        """What the header says, from memory while the file is unchanged."""
        path = self._place(adapter_id, _WEIGHTS)
        with storage_errors(path.name):
            stamp = file_stamp(path)
            known = self._known.get(adapter_id)
            if known is None or known.stamp != stamp:
                known = self._known[adapter_id] = _read_file(path, adapter_id, stamp)
        return known

    def _keep_verdict(self, adapter_id: str, stamp: FileStamp, target: AdapterTarget, verdict: Verdict) -> None:
        """Remember a verdict for as long as the file has the stamp that it had before it was judged."""
        with self._lock:
            known = self._known.get(adapter_id)
            if known is not None and known.stamp == stamp:
                verdicts = (*known.verdicts, (target, verdict))[-_MAX_VERDICTS:]
                self._known[adapter_id] = replace(known, verdicts=verdicts)

    def _hashed(self, entry: AdapterEntry) -> AdapterEntry:
        adapter = entry.adapter
        if adapter is None or adapter.tensor_sha256:
            return entry
        path = self._place(entry.id, _WEIGHTS)
        with storage_errors(path.name):
            adapter = replace(adapter, tensor_sha256=tensor_sha256(path, read_header(path)))
        self._known[entry.id] = replace(self._known[entry.id], adapter=adapter)
        return replace(entry, adapter=adapter)

    def _twin(self, adapter: Adapter) -> AdapterEntry | None:
        """The adapter with the same tensors; only what looks the same from outside is hashed."""
        alike = (e for e in self.entries() if e.adapter and _looks(e.adapter) == _looks(adapter))
        hashed = map(self._hashed, alike)
        return next((e for e in hashed if e.adapter and e.adapter.tensor_sha256 == adapter.tensor_sha256), None)

    def _free_id(self, stem: str) -> str:
        taken = {other.casefold() for other in self._ids()}
        names = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
        return next(name for name in names if name.casefold() not in taken)

    def _forget(self, adapter_id: str) -> None:
        """Drop what lies beside an adapter that is gone."""
        self._known.pop(adapter_id, None)
        for suffix in (_CARD, _PREVIEW):
            self._place(adapter_id, suffix).unlink(missing_ok=True)

    def _card(self, adapter_id: str) -> AdapterCard:
        path = self._place(adapter_id, _CARD)
        try:
            if path.is_file() and path.stat().st_size <= _MAX_CARD_BYTES:
                return AdapterCard.model_validate_json(path.read_bytes())
        except (ValidationError, OSError) as error:
            logger.warning("the card %s cannot be read: %s", path.name, error)
        return AdapterCard()

    def _write_card(self, adapter_id: str, card: AdapterCard) -> None:
        text = card.model_dump_json(indent=2, exclude_defaults=True)
        write_whole(self._place(adapter_id, _CARD), [text.encode()])


def _read_file(path: Path, adapter_id: str, stamp: FileStamp) -> _Known:
    try:
        file = read_adapter(path)
        check_supported(file)
        return _Known(stamp=stamp, adapter=describe(file, adapter_id), problem="")
    except StudioError as error:
        return _Known(stamp=stamp, adapter=None, problem=str(error))


def _admitted(source: Path) -> Adapter:
    """Describe a file that may enter the store, with its hash."""
    if source.suffix.lower() in _PICKLES:
        raise _pickle(source)
    try:
        file = read_adapter(source)
    except CorruptModel:
        with source.open("rb") as opened:
            if opened.read(4).startswith(_PICKLE_STARTS):
                raise _pickle(source) from None
        raise
    check_supported(file)
    check_numbers(file)
    adapter = describe(file, source.stem)
    return replace(adapter, tensor_sha256=tensor_sha256(source, read_header(source)))


def _pickle(source: Path) -> CorruptModel:
    return CorruptModel(
        f"{source.name} is a pickle, which can run code when it is opened.",
        "Choose the .safetensors version of the adapter.",
    )


def _blocks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def _without_suffix(name: str) -> str:
    return name[: -len(_WEIGHTS)] if name.lower().endswith(_WEIGHTS) else name


def _is_id(name: str) -> bool:
    try:
        return checked_id(name) == name
    except NotFound:
        return False


def _looks(adapter: Adapter) -> tuple[object, ...]:
    return adapter.module_count, adapter.parts, adapter.algorithm, adapter.ranks


def _integrity_note(adapter: Adapter, card: AdapterCard) -> tuple[str, ...]:
    if card.tensor_sha256 not in (None, adapter.tensor_sha256):
        return ("Its weights have changed since it was added. If that was not you, fetch the file again.",)
    if card.tensor_sha256 is None and stated_sha256(adapter.metadata) not in (None, adapter.tensor_sha256):
        return ("Its weights are not those that its metadata name: it was edited, or damaged on its way.",)
    return ()


def _unrecorded_note(adapter: Adapter, card: AdapterCard) -> tuple[str, ...]:
    is_recorded = card.tensor_sha256 or stated_sha256(adapter.metadata)
    return () if is_recorded else ("There is no recorded hash to tell whether it is as it was made.",)


def _invalid_card(error: ValidationError) -> InvalidRequest:
    problem = error.errors(include_url=False)[0]
    field = str(problem["loc"][0])
    return InvalidRequest(
        f"{field.replace('_', ' ').capitalize()}: {problem['msg'].lower()}.", _EDITABLE.get(field, ""), field
    )
