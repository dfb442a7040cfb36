"""`adapters`: the LoRA files that are kept here."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from lora_registry.store import AdapterStore
from studio.adapters import AdapterService
from studio.cli.report import DONE
from studio.domain.adapter import FAMILY_TITLES, Adapter, AdapterEntry
from studio.domain.catalogue import Catalogue
from studio.settings import Settings


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
        case "rename":
            print(store.rename(options.adapter, options.name).id)
        case "remove":
            store.remove(options.adapter)
        case "show":
            service = AdapterService(store, settings.models_dir)
            _show(service, options.adapter, options.model, catalogue, as_json=options.json)
        case _:
            _list(store.entries(), as_json=getattr(options, "json", False))
    return DONE


def _list(entries: tuple[AdapterEntry, ...], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_values(entry) for entry in entries], indent=2, ensure_ascii=False))
        return
    rows = [("ID", "FAMILY", "KIND", "RANK", "TRIGGER WORDS")] + [_cells(entry) for entry in entries]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _show(service: AdapterService, adapter_id: str, model: str | None, catalogue: Catalogue, *, as_json: bool) -> None:
    entry = service.store.inspect(adapter_id)
    values = _values(entry)
    if model is not None:
        verdict = service.verdict(adapter_id, catalogue.checkpoint(model))
        values["verdict"] = {"fits": verdict.is_ok, "message": verdict.message, "notes": list(verdict.notes)}
    if as_json:
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return
    for name, value in values.items():
        if value not in (None, "", [], {}):
            print(f"{name}: {json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value}")


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
    facts = dataclasses.asdict(entry.adapter) if entry.adapter else {"problem": entry.problem}
    own = {
        "id": entry.id,
        "title": entry.title,
        "trigger_words": entry.trigger_words,
        "notes_of_owner": entry.card.notes,
    }
    return {"id": entry.id, **facts, **own, "lora_scale": entry.card.lora_scale}
