"""`grid`: the checkpoints of a run beside each other, drawn and judged; which one is best."""

import argparse
import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from studio.cli.arguments import complain
from studio.cli.columns import aligned
from studio.cli.delivery import prepared
from studio.cli.generate import follow
from studio.cli.passing import passing_services
from studio.cli.progress import choose_reporter
from studio.cli.report import DONE, STOPPED
from studio.domain.catalogue import Catalogue
from studio.domain.run_grid import GridRequest, parse_grid
from studio.files import storage_errors
from studio.gallery import Gallery
from studio.generation import EngineHolder
from studio.run_grid import RunGrid
from studio.run_grid_overfit import overfit
from studio.run_grid_scores import ColumnScore, clip_words, interval, ordinary_words, verdict
from studio.run_grid_sheet import picture_name
from studio.settings import Settings

_HEADER = ("", "PICTURES", "RIGHT", "CLIP", "CLIP ABOVE NONE", "DIVERSITY", "NEAR TRAINING", "ORDINARY PROMPTS")


def run(options: argparse.Namespace, catalogue: Catalogue, engine: EngineHolder | None) -> int:
    """Draw what is asked, print the table and which is best; gives the exit code.

    Raises:
        StudioError: nothing was drawn, or what was drawn could not be copied.
    """
    request = parse_grid({name: getattr(options, name) for name in GridRequest.model_fields if hasattr(options, name)})
    settings = Settings.from_environment()
    folder = None if options.out is None else prepared(Path(options.out))
    stdout = sys.stdout
    with passing_services(settings, engine) as services:
        if options.use is not None:
            print(services.training.use_checkpoint(request.run, options.use), file=stdout, flush=True)
            return DONE
        begun = services.run_grids.submit(request)
        assert begun.job is not None
        reporter = choose_reporter(catalogue.checkpoint(begun.grid.recipe.checkpoint), settings, is_quiet=options.quiet)
        kept = services.training.run_of(request.run).checkpoints
        size = sum(path.stat().st_size for path in kept.values()) / 1e6
        reporter.note(f"{len(kept)} checkpoints are kept, {size:.1f} MB. {len(begun.grid.cells())} pictures.")
        outcome = follow(begun.job, lambda _: None, reporter)
        if outcome.is_abandoned:
            os._exit(STOPPED)
        ended = services.run_grids.standing(begun)
        scores = services.run_grids.scores(ended)
        sheet = _delivered(ended, services.gallery, folder)
        if options.json:
            print(_document(outcome.status, ended, scores, sheet), file=stdout, flush=True)
        elif sheet:
            print(sheet, file=stdout, flush=True)
        reporter.note(table(scores))
        reporter.note(verdict(scores))
        for warning in overfit(scores):
            reporter.note(warning)
        if outcome.error:
            complain(outcome.error)
    return outcome.exit_code


def table(scores: tuple[ColumnScore, ...]) -> str:
    """The scores as lines of text."""
    lines = [_HEADER, *(_line(score) for score in scores)]
    return "\n".join(aligned(lines, is_sparse=True))


def _line(score: ColumnScore) -> tuple[str, ...]:
    return (
        score.column.title,
        f"{score.n}, {score.failed} failed" if score.failed else str(score.n),
        interval(score.right) if score.right else "",
        clip_words(score.clip, "{:.1f}".format) if score.clip else "",
        clip_words(score.clip_gain, "{:+.1f}".format) if score.clip_gain else "",
        score.diversity.words("{:.3f}".format) if score.diversity else "",
        interval(score.near) if score.near else "",
        ordinary_words(score),
    )


def _delivered(grid: RunGrid, gallery: Gallery, folder: Path | None) -> Path | None:
    """Where the contact sheet lies; copied to `folder` with the pictures, if there is one.

    Raises:
        StorageFailed: they could not be copied.
    """
    sheet = grid.folder.sheet if grid.folder.sheet.is_file() else None
    if folder is None or sheet is None:
        return sheet
    with storage_errors(folder):
        for cell in grid.grid.cells():
            if record := grid.pictures.get(cell.index):
                shutil.copyfile(gallery.path(record), folder / picture_name(cell))
        return Path(shutil.copyfile(sheet, folder / sheet.name))


def _document(status: str, grid: RunGrid, scores: tuple[ColumnScore, ...], sheet: Path | None) -> str:
    def plain(score: ColumnScore) -> dict[str, Any]:
        scale = score.column.use.lora_scale if score.column.use else None
        told = {"column": score.column.name, "step": score.column.step, "scale": scale}
        return {**dataclasses.asdict(score), **told}

    values = {
        "status": status,
        "grid": grid.grid.model_dump(),
        "columns": [plain(score) for score in scores],
        "cells": [result.model_dump() for result in grid.results.values()],
        "verdict": verdict(scores),
        "warnings": overfit(scores),
        "sheet": sheet and str(sheet),
    }
    return json.dumps(values, indent=2, ensure_ascii=False)
