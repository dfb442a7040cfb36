"""`models`: what can draw, and what it takes to have it here. No model is opened."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import try_to_load_from_cache

from studio.cli.report import DONE
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.settings import PROJECT_ROOT, Settings


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a checkpoint's weights are; `folder` is None while they are not on this machine."""

    kind: Literal["embedded", "here", "download", "missing"]
    folder: Path | None = None


def run(catalogue: Catalogue, settings: Settings, *, as_json: bool) -> int:
    """Print the list."""
    rows = [(checkpoint, place(checkpoint, settings)) for checkpoint in catalogue.checkpoints]
    if as_json:
        default = catalogue.default_checkpoint
        print(json.dumps([_values(row, where, row.id == default) for row, where in rows], indent=2, ensure_ascii=False))
        return DONE
    header = ("ID", "TITLE", "FAMILY", "SIZE", "LICENCE", "WHERE")
    cells = [header] + [
        (row.id, row.title, row.family, f"{row.native_size} px", row.licence, _words(row, where)) for row, where in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return DONE


def place(checkpoint: Checkpoint, settings: Settings) -> Place:
    """Where `checkpoint` is, looked for as `PipelinePool` does: models folder, catalogue folder, the hub's cache."""
    dropped = settings.models_dir / checkpoint.id
    if dropped.is_dir():
        return Place(kind="here", folder=dropped)
    if checkpoint.folder is not None:
        folder = PROJECT_ROOT / checkpoint.folder
        return Place(kind="embedded", folder=folder) if folder.is_dir() else Place(kind="missing")
    index = try_to_load_from_cache(checkpoint.hub_id or "", "model_index.json")
    if isinstance(index, str) and any((Path(index).parent / "unet").glob("*.safetensors")):
        return Place(kind="here", folder=Path(index).parent)
    return Place(kind="download")


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
