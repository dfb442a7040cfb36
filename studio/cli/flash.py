"""`flash`: few steps beside many, drawn, timed and compared."""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from lora_registry.store import AdapterStore
from studio.cli.arguments import complain
from studio.cli.columns import aligned
from studio.cli.delivery import Picture, copied, prepared
from studio.cli.generate import follow
from studio.cli.passing import passing_services
from studio.cli.progress import choose_reporter
from studio.cli.report import STOPPED
from studio.comparison import Figures
from studio.domain.catalogue import Catalogue
from studio.domain.flash import Comparison, FlashRequest, parse_flash, resolve_flash
from studio.files import atomic_write, storage_errors
from studio.flash_files import grids, picture_name, png
from studio.generation import EngineHolder
from studio.job import Job
from studio.own_accelerators import OwnAccelerators
from studio.prompts import remarks
from studio.services import Services
from studio.settings import Settings
from studio.statistics import Spread

_HEADER = (
    *("", "PICTURES", "SECONDS", "TEXT / UNET / DECODE", "UNET CALLS", "SPEED-UP", "MEMORY"),
    *("LIKENESS", "RIGHT", "CLIP"),
)


def run(options: argparse.Namespace, catalogue: Catalogue, engine: EngineHolder | None) -> int:
    """Draw what is asked, print the table; gives the exit code.

    Raises:
        StudioError: nothing was drawn, or a finished picture could not be copied.
    """
    given = {name: getattr(options, name) for name in FlashRequest.model_fields if hasattr(options, name)}
    settings = Settings.from_environment()
    if options.adapter:
        own = OwnAccelerators(AdapterStore(settings.accelerators_dir), catalogue)
        given["accelerator"] = own.add(Path(options.adapter)).id
    comparison = resolve_flash(parse_flash(given), catalogue)
    folder = None if options.out is None else prepared(Path(options.out))
    checkpoint = catalogue.checkpoint(comparison.columns[0].recipe.checkpoint)
    reporter = choose_reporter(checkpoint, settings, is_quiet=options.quiet)
    for column in comparison.columns:
        for remark in remarks(column.recipe, catalogue):
            reporter.note(remark)
    stdout = sys.stdout
    with passing_services(settings, engine) as services:
        job = services.flash.submit_resolved(comparison)
        delivery = _Delivery(services, job, comparison, folder)

        def deliver(image_id: str) -> None:
            if picture := delivery.take(image_id):
                reporter.picture(picture)
                if not options.json:
                    print(picture.path, file=stdout, flush=True)

        outcome = follow(job, deliver, reporter)
        delivery.write_grids()
        figures = services.flash.figures(job)
        if options.json:
            print(_document(outcome.status, comparison, figures, delivery.paths), file=stdout, flush=True)
        reporter.note(table(figures))
        if words := services.flash.judged_by(job):
            reporter.note(words)
        if outcome.error:
            complain(outcome.error)
        if outcome.is_abandoned:
            os._exit(STOPPED)
    return outcome.exit_code


class _Delivery:
    """Copies the pictures of a comparison to `folder`, if there is one, under names that say what they are."""

    def __init__(self, services: Services, job: Job, comparison: Comparison, folder: Path | None) -> None:
        self.paths: list[Path] = []
        self._services = services
        self._job = job
        self._comparison = comparison
        self._cells = {cell.index: cell for cell in comparison.cells()}
        self._folder = folder
        self._taken: set[str] = set()

    def take(self, image_id: str) -> Picture | None:
        """Deliver a picture; None if it was delivered before."""
        if image_id in self._taken:
            return None
        self._taken.add(image_id)
        record = self._services.gallery.image(image_id)
        source = path = self._services.gallery.path(record)
        if self._folder is not None:
            name = Path(picture_name(self._cells[record.image_index]))
            place = prepared(self._folder / name.parent)
            path = copied(source, place, name.stem)
        self.paths.append(path)
        return Picture(record=record, path=path, gallery_path=source, is_earlier=False)

    def write_grids(self) -> None:
        """Write the grids of what there is; one of the same name is replaced."""
        if self._folder is None:
            return
        pictures = self._services.flash.pictures(self._job)
        for name, sheet in grids(self._comparison, pictures, self._services.gallery.path):
            with storage_errors(self._folder):
                atomic_write(self._folder / name, png(sheet))
            self.paths.append(self._folder / name)


def table(figures: tuple[Figures, ...]) -> str:
    """The figures as lines of text."""
    lines = [_HEADER, *(_line(each) for each in figures)]
    return "\n".join(aligned(lines, is_sparse=True))


def _line(each: Figures) -> tuple[str, ...]:
    parts = " / ".join(f"{each.seconds[phase].median:.2f}" for phase in ("text", "denoise", "decode"))
    return (
        f"{'baseline, ' if each.column.is_baseline else ''}{each.column.title}",
        str(each.n),
        _seconds(each.seconds["total"]),
        parts,
        str(each.column.evaluations),
        f"{each.speed_up.words('{:.1f}'.format)} ×" if each.speed_up else "",
        f"{each.peak_memory_mb:,.0f} MB",
        each.likeness.words() if each.likeness else "",
        each.right.words("{:.0%}".format) if each.right else "",
        _clip(each),
    )


def _clip(each: Figures) -> str:
    gain = f", {each.clip_gain.words('{:+.1f}'.format)}" if each.clip_gain else ""
    return f"{each.clip.words('{:.1f}'.format)}{gain}" if each.clip else ""


def _seconds(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.lower:.2f}-{spread.upper:.2f})"


def _document(status: str, comparison: Comparison, figures: tuple[Figures, ...], paths: list[Path]) -> str:
    def plain(each: Figures) -> dict[str, Any]:
        values = dataclasses.asdict(each)
        return values | {"column": each.column.name, "title": each.column.title, "evaluations": each.column.evaluations}

    values = {
        "status": status,
        "comparison": comparison.model_dump(),
        "columns": [plain(each) for each in figures],
        "paths": [str(path) for path in paths],
    }
    return json.dumps(values, indent=2, ensure_ascii=False)
