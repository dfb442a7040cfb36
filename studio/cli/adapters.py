"""`adapters`: the LoRA files that are kept here."""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lora_registry.store import AdapterStore
from studio.adapters import AdapterService
from studio.cli.columns import aligned
from studio.cli.merge_arguments import given_portions
from studio.cli.report import DONE
from studio.cli.runs import new_reporter
from studio.domain.adapter import FAMILY_TITLES, Adapter, AdapterEntry
from studio.domain.catalogue import Catalogue
from studio.settings import Settings

_MERGE_FIELDS = ("method", "rank", "density", "majority_sign", "seed")


def run(options: argparse.Namespace, catalogue: Catalogue, settings: Settings) -> int:
    """Do what was asked of the store.

    Raises:
        StudioError: an adapter that is not there, a file that is none, a name that is taken.
    """
    store = AdapterStore(settings.adapters_dir)
    match options.action:
        case "add":
            added = store.add(Path(options.file), options.name)
            print(added.entry.id if added.is_new else f"{added.entry.id} has the same weights already")
        case "edit":
            _edit(AdapterService(store, settings.models_dir, settings.runs_dir), options.adapter, vars(options))
        case "merge":
            _merge(store, vars(options))
        case "push":
            _push(store, catalogue, settings, options)
        case "pull":
            _pull(store, settings, options)
        case "rename":
            print(store.rename(options.adapter, options.name).id)
        case "remove":
            store.remove(options.adapter)
        case "show":
            service = AdapterService(store, settings.models_dir, settings.runs_dir)
            _show(service, options.adapter, options.model, catalogue, as_json=options.json)
        case _:
            _list(store.entries(), as_json=getattr(options, "json", False))
    return DONE


def _edit(service: AdapterService, adapter_id: str, given: Mapping[str, Any]) -> None:
    edited = service.edit(adapter_id, given)
    preview = given.get("preview")
    if preview:
        service.set_preview(adapter_id, Path(preview))
    elif preview is not None:
        service.store.set_preview(adapter_id, None)
    print(edited.id)


def _merge(store: AdapterStore, given: Mapping[str, Any]) -> None:
    from studio.adapter_merging import (
        merge,
    )  # imported here: torch takes seconds that the other actions need not wait for

    asked = {field: given[field] for field in _MERGE_FIELDS if field in given}
    merged = merge(store, given_portions(given["portions"]), given["name"], **asked)
    print(merged.entry.id if merged.is_new else f"{merged.entry.id} has the same weights already")


def _push(store: AdapterStore, catalogue: Catalogue, settings: Settings, options: argparse.Namespace) -> None:
    from studio.publication import push, write_publication  # as in _merge

    if options.to is not None:
        folder = Path(options.to)
        for name in write_publication(store, catalogue, settings, options.adapter, options.repository, folder):
            print(folder / name)
        return
    print(push(store, catalogue, settings, options.adapter, options.repository, is_private=options.private))


def _pull(store: AdapterStore, settings: Settings, options: argparse.Namespace) -> None:
    from studio.publication import pull  # as in _merge

    reporter = new_reporter(is_quiet=options.quiet)

    def tell(done: int, total: int) -> None:
        reporter.progress(f"{done / 1e6:.0f} of {total / 1e6:.0f} MB", done / max(1, total))

    added = pull(store, settings, options.source, options.name, tell)
    print(added.entry.id if added.is_new else f"{added.entry.id} has the same weights already")


def _list(entries: tuple[AdapterEntry, ...], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_values(entry) for entry in entries], indent=2, ensure_ascii=False))
        return
    rows = [("ID", "FAMILY", "KIND", "RANK", "TRIGGER WORDS")] + [_cells(entry) for entry in entries]
    for line in aligned(rows):
        print(line)


def _show(service: AdapterService, adapter_id: str, model: str | None, catalogue: Catalogue, *, as_json: bool) -> None:
    entry = service.store.inspect(adapter_id)
    values = _values(entry)
    if entry.adapter is not None:
        values["keys"] = list(service.store.keys(adapter_id))
    if model is not None:
        verdict = service.verdict(adapter_id, catalogue.checkpoint(model))
        values["verdict"] = {"fits": verdict.is_ok, **dataclasses.asdict(verdict)}
    if as_json:
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return
    told = {**values, "keys": _some(values.get("keys", [])), "verdict": _sentence(values.get("verdict"))}
    for name, value in told.items():
        if line := _line(value, " " if name == "notes" else ", "):
            print(f"{name}: {line}")


def _line(value: Any, between: str) -> str:
    """A value as one line; "" for one that says nothing."""
    if isinstance(value, tuple | list):
        return between.join(map(str, cast("tuple[Any, ...] | list[Any]", value)))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return "" if value is None else str(value)


def _some(keys: list[str]) -> str:
    """How many tensors there are and how they are called; JSON gives all the names."""
    if not keys:
        return ""
    first, last = (json.dumps(name[:200]) for name in (keys[0], keys[-1]))
    return f"{len(keys)}, from {first} to {last}"


def _sentence(verdict: dict[str, Any] | None) -> str:
    if verdict is None:
        return ""
    said = "It can be used." if verdict["fits"] else f"{verdict['message']} {verdict['hint']}"
    return " ".join((said.strip(), *verdict["notes"]))


def _cells(entry: AdapterEntry) -> tuple[str, ...]:
    adapter = entry.adapter
    if adapter is None:
        return entry.id, "cannot be used", entry.problem, "", ""
    family = FAMILY_TITLES[adapter.family] if adapter.family else "undecided"
    return entry.id, family, adapter.algorithm, _range(adapter), ", ".join(entry.trigger_words)


def _range(adapter: Adapter) -> str:
    ranks = adapter.ranks
    return "" if not ranks else str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}–{ranks[-1]}"


def _values(entry: AdapterEntry) -> dict[str, Any]:
    adapter = entry.adapter
    facts = {**dataclasses.asdict(adapter), "short_hash": adapter.short_hash} if adapter else {"problem": entry.problem}
    own = {
        "id": entry.id,
        "title": entry.title,
        "trigger_words": entry.trigger_words,
        "notes_of_owner": entry.card.notes,
    }
    return {"id": entry.id, **facts, **own, "lora_scale": entry.card.lora_scale}
