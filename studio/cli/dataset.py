"""`dataset`: look at pictures before a training, caption them and bring them into its form."""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from studio.cli import captions, collect
from studio.cli.caption_arguments import CAPTION_ACTIONS, SOURCE_ACTIONS
from studio.cli.columns import aligned, printable
from studio.cli.progress import Bar, Lines, Silent
from studio.cli.report import DONE, FAILED
from studio.dataset_import import import_zip
from studio.dataset_prepare import Phase, prepare
from studio.dataset_scan import scan
from studio.domain.datasets import Scan, Verdict
from studio.domain.errors import InvalidRequest
from studio.generation import EngineHolder

_MAX_CELL = 60
_DOING = {"scan": "looking at picture", "write": "writing picture"}


def run(options: argparse.Namespace, engine: EngineHolder | None = None) -> int:
    """Do what was asked; gives the exit code. A scan fails if nothing can be used.

    Raises:
        StudioError: there are no pictures, or they cannot be read or written.
    """
    reporter = _reporter(is_quiet=options.quiet)
    if options.action in SOURCE_ACTIONS:
        return collect.run(options, reporter)
    if options.action in CAPTION_ACTIONS:
        return captions.run(options, reporter, engine)
    return _scan(options, reporter) if options.action == "scan" else _prepare(options, reporter)


def _scan(options: argparse.Namespace, reporter: Silent) -> int:
    if options.min_size < 1:
        raise InvalidRequest(f"A side of {options.min_size} px is none.", "Give --min-size 1 or more.", "min_size")
    tell = _telling(reporter)
    with _folder(Path(options.folder), reporter) as folder:
        found = scan(folder, min_size=options.min_size, on_progress=lambda done, total: tell("scan", done, total))
    print(_document(found, options.folder) if options.json else _table(found))
    for note in found.notes:
        reporter.note(printable(note))
    reporter.note(found.summary)
    return DONE if found.usable else FAILED


def _prepare(options: argparse.Namespace, reporter: Silent) -> int:
    with _folder(Path(options.src), reporter) as source:
        made = prepare(
            source,
            Path(options.dst),
            options.size,
            options.crop,
            options.layout,
            trigger=options.trigger,
            replace=options.replace,
            on_progress=_telling(reporter),
        )
    for note in made.notes:
        reporter.note(printable(note))
    reporter.note(made.summary)
    print(made.folder)
    return DONE


@contextmanager
def _folder(path: Path, reporter: Silent) -> Generator[Path]:
    """The folder at `path`, or for as long as it is needed what a zip there holds."""
    if not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        imported = import_zip(path, Path(folder) / path.stem)
        for left_out in imported.left_out:
            reporter.note(printable(left_out))
        reporter.note(imported.summary)
        yield imported.folder


def _telling(reporter: Silent) -> Callable[[Phase, int, int], None]:
    def tell(phase: Phase, done: int, total: int) -> None:
        reporter.progress(f"{_DOING[phase]} {done} of {total}", done / total)

    return tell


def _reporter(*, is_quiet: bool) -> Silent:
    if is_quiet:
        return Silent()
    return (Bar if sys.stderr.isatty() else Lines)("")


def _document(found: Scan, folder: str) -> str:
    values = {
        "folder": folder,
        "summary": found.summary,
        "num_usable": len(found.usable),
        "pictures": [{**dataclasses.asdict(verdict), "is_usable": verdict.is_usable} for verdict in found.verdicts],
        "notes": found.notes,
    }
    text = json.dumps(values, indent=2, ensure_ascii=False)
    return text.encode(errors="replace").decode()  # a file name need not be text


def _table(found: Scan) -> str:
    rows = [("NAME", "SIZE", "CAN BE USED", "REMARKS", "CAPTION"), *map(_cells, found.verdicts)]
    return "\n".join(aligned(rows))


def _cells(verdict: Verdict) -> tuple[str, ...]:
    size = f"{verdict.width}×{verdict.height}" if verdict.width else ""
    remarks = ", ".join(
        f"{remark.finding} of {remark.twin}" if remark.twin else remark.finding for remark in verdict.remarks
    )
    cells = (verdict.name, size, "yes" if verdict.is_usable else "no", remarks.replace("_", " "), verdict.caption)
    return tuple(map(_shown, cells))


def _shown(text: str) -> str:
    plain = printable(text)
    return plain if len(plain) <= _MAX_CELL else f"{plain[: _MAX_CELL - 1]}…"
