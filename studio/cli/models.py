"""`models`: what can draw and what it takes to have it here, without opening any; one's own; stand-ins of full size."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engines.downloads import cached
from engines.places import local_place, sources_of
from lora_registry.store import AdapterStore
from studio.adapters import AdapterService
from studio.checkpoint_merging import CheckpointMerging
from studio.checkpoints import OwnCheckpoints, Refused
from studio.cli.columns import aligned
from studio.cli.report import DONE
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.tags import adapters_named
from studio.files import storage_errors
from studio.settings import PROJECT_ROOT, Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a checkpoint's weights are; `folder` is None while they are not on this machine."""

    kind: Literal["embedded", "here", "download", "missing"]
    folder: Path | None = None


def run(options: argparse.Namespace, catalogue: Catalogue, settings: Settings) -> int:
    """Do what was asked. The id of a model goes to standard output, what is to tell of it to standard error.

    Raises:
        StudioError: a path that leads to no checkpoint, a model that is not there or not to be removed.
    """
    own = OwnCheckpoints(settings.models_dir, catalogue)
    match options.action:
        case "add":
            added = own.add(options.path, options.name)
            print(added.message, file=sys.stderr)
            print(added.checkpoint.id)
        case "remove":
            print(f"Out of the list; untouched: {own.remove(options.model)}", file=sys.stderr)
        case "merge":
            _merge(options, catalogue, own, settings)
        case "build-random":
            return build_random(options.family, options.name, settings)
        case _:
            return _list(catalogue, settings, own.refresh(), as_json=options.json)
    return DONE


def _merge(options: argparse.Namespace, catalogue: Catalogue, own: OwnCheckpoints, settings: Settings) -> None:
    from engines.quiet import quiet_libraries  # imported here: torch takes seconds that the list need not wait for

    quiet_libraries()
    own.refresh()
    adapters = AdapterService(AdapterStore(settings.adapters_dir), settings.models_dir, settings.runs_dir)
    merging = CheckpointMerging(catalogue, own, adapters, settings)
    uses = [use for text in options.adapters for use in adapters_named(f"<lora:{text}>")]
    added = merging.merge(
        options.model, uses, options.name, lambda part: print(f"{part} …", file=sys.stderr, flush=True)
    )
    print(added.message, file=sys.stderr)
    print(added.checkpoint.id)


def _list(catalogue: Catalogue, settings: Settings, refused: Sequence[Refused], *, as_json: bool) -> int:
    """Print the list; what lies in the models folder and cannot be used is told on standard error."""
    for found in refused:
        print(f"left out: {found.error}", file=sys.stderr)
    rows = [(checkpoint, place(checkpoint, settings)) for checkpoint in catalogue.checkpoints]
    if as_json:
        default = catalogue.default_checkpoint
        print(json.dumps([_values(row, where, row.id == default) for row, where in rows], indent=2, ensure_ascii=False))
        return DONE
    header = ("ID", "TITLE", "FAMILY", "SIZE", "LICENCE", "WHERE")
    cells = [header] + [
        (row.id, row.title, row.family, f"{row.native_size} px", row.licence, _words(row, where)) for row, where in rows
    ]
    for line in aligned(cells):
        print(line)
    return DONE


def build_random(family: str, name: str | None, settings: Settings) -> int:
    """Write a full-size checkpoint of `family` with random weights into the models folder."""
    name = name or f"random-{family}"
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} cannot be the id of a model.", "Use letters, digits, dots, dashes and underscores.", "name"
        )
    from engines.full_size import build_random  # imported here: torch takes seconds that the list need not wait for
    from engines.quiet import quiet_libraries

    quiet_libraries()
    folder = settings.models_dir / name
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        build_random(family, folder, on_part=lambda part: print(f"{name}: {part} …", file=sys.stderr, flush=True))
    print(folder)
    return DONE


def place(checkpoint: Checkpoint, settings: Settings) -> Place:
    """Where `checkpoint` is, looked for as `PipelinePool` does: models folder, catalogue folder, the hub's cache."""
    try:
        found = local_place(checkpoint, PROJECT_ROOT, settings.models_dir)
    except NotFound:
        return Place(kind="missing")
    if found is not None:
        return Place(kind="here" if found.parent == settings.models_dir else "embedded", folder=found)
    in_cache = next(filter(None, map(cached, sources_of(checkpoint))), None)
    return Place(kind="here", folder=in_cache) if in_cache else Place(kind="download")


def _words(checkpoint: Checkpoint, where: Place) -> str:
    return {
        "embedded": "embedded",
        "here": "on this machine",
        "download": f"download, {checkpoint.download_gb or 0:g} GB",
        "missing": "missing; build it: python -m engines.pocket.build",
    }[where.kind]


def _values(checkpoint: Checkpoint, where: Place, is_default: bool) -> dict[str, Any]:
    fields = ("id", "title", "family", "native_size", "licence", "note", "hub_id", "download_gb")
    values = {field: getattr(checkpoint, field) for field in fields}
    folder = None if where.folder is None else str(where.folder)
    return {**values, "is_default": is_default, "place": where.kind, "folder": folder}
