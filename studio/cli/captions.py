"""`dataset merge`, `verify` and `split`; `caption` has a module of its own."""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from studio.captions.merging import CONFLICTS, Chosen, conflict_report, merge
from studio.captions.mismatch import mismatched
from studio.captions.parts import Range, ranges
from studio.captions.pictures import names_in, pictures_in
from studio.captions.shards import Reading
from studio.captions.splitting import parse_shares, part
from studio.captions.verifying import Doubt, Verification, redo_list, verify
from studio.cli import caption
from studio.cli.caption import shards_of
from studio.cli.columns import aligned, printable
from studio.cli.passing import passing_services
from studio.cli.progress import Silent
from studio.cli.report import DONE, FAILED
from studio.domain.captions import Picture
from studio.domain.datasets import counted
from studio.domain.errors import InvalidRequest
from studio.files import atomic_write
from studio.generation import EngineHolder
from studio.settings import Settings

_SHOWN = 20
"""So many of a kind are listed; --json has all."""


def run(options: argparse.Namespace, reporter: Silent, engine: EngineHolder | None = None) -> int:
    """Do what was asked; gives the exit code.

    Raises:
        StudioError: it cannot be done.
    """
    if options.action == "caption":
        return caption.run(options, reporter)
    if options.action == "merge":
        return _merge(options, reporter)
    return _verify(options, reporter, engine) if options.action == "verify" else _split(options, reporter)


def _merge(options: argparse.Namespace, reporter: Silent) -> int:
    folder, shards = Path(options.folder), _shards(options)
    names = names_in(folder)
    reading, chosen = _read(shards)
    merged = merge(folder, _hashed(folder, names, reporter), chosen, options.layout)
    for line in reading.bad[:_SHOWN]:
        reporter.note(str(line))
    if merged.conflicts:
        report = shards[0] / CONFLICTS
        atomic_write(report, conflict_report(merged.conflicts, chosen))
        reporter.note(f"{counted(len(merged.conflicts), 'picture')} had several captions: see {report.name} there.")
    told = [f"{counted(merged.num_captions, 'caption')} written"]
    told += [f"{merged.num_missing} still without one"] if merged.num_missing else []
    told += [f"{merged.num_orphans} of pictures that are not here"] if merged.num_orphans else []
    told += [f"{counted(len(reading.bad), 'line')} of shards could not be read"] if reading.bad else []
    reporter.note(f"{', '.join(told)}.")
    print(merged.path)
    return FAILED if merged.num_missing or reading.bad else DONE


def _verify(options: argparse.Namespace, reporter: Silent, engine: EngineHolder | None) -> int:
    folder = Path(options.folder)
    names = names_in(folder)
    reading, chosen = _read(_shards(options))
    pictures = list(_hashed(folder, names, reporter))
    objections: frozenset[bytes] = frozenset()
    if options.judge:
        objections = _judged(options.judge, folder, pictures, chosen, reporter, engine)
    found = verify(pictures, chosen, reading, objections)
    if options.redo_list:
        atomic_write(Path(options.redo_list), redo_list(found.to_do))
    print(_document(found) if options.json else _table(found))
    reporter.note(found.summary)
    return DONE if found.is_whole else FAILED


def _judged(
    name: str, folder: Path, pictures: Sequence[Picture], chosen: Chosen, reporter: Silent, engine: EngineHolder | None
) -> frozenset[bytes]:
    with passing_services(Settings.from_environment(), engine) as services:
        services.scoring.asked_for(name)
        judge = services.scoring.ready(name)
        return mismatched(
            folder,
            pictures,
            chosen,
            lambda path, texts: services.scoring.score_texts(judge, path, texts),
            lambda done: reporter.progress(f"judging {done} of {len(pictures)}", done / len(pictures)),
        )


def _split(options: argparse.Namespace, reporter: Silent) -> int:
    folder = Path(options.folder)
    names = names_in(folder)
    if (options.workers is None) == (options.parts is None):
        raise InvalidRequest("Either the work is shared or the pictures are.", "Give --workers or --parts.", "workers")
    if options.workers is not None:
        print("\n".join(aligned([("PICTURES", "COMMAND"), *_commands(folder, len(names), options.workers)])))
        return DONE
    if not options.dst:
        raise InvalidRequest("There is no place for the parts.", "Give a new folder with --dst.", "dst")
    shares = parse_shares(options.parts)
    made = part(folder, _hashed(folder, names, reporter), Path(options.dst), shares, options.seed)
    reporter.note(made.summary)
    print(made.folder)
    return DONE


def _commands(folder: Path, total: int, workers: int) -> Iterator[tuple[str, str]]:
    for each in ranges(total, workers):
        told = Range(start=each.start, end=each.end)
        yield (
            str((told.end or 0) - told.start),
            f"python -m studio dataset caption {folder} --start {told.start} --end {told.end}",
        )


def _shards(options: argparse.Namespace) -> list[Path]:
    return [Path(each) for each in options.shards] if options.shards else [shards_of(Path(options.folder))]


def _read(shards: Sequence[Path]) -> tuple[Reading, Chosen]:
    reading, chosen = Reading(folders=shards), Chosen()
    for row in reading.rows():
        chosen.add(row)
    return reading, chosen


def _hashed(folder: Path, names: list[str], reporter: Silent) -> Iterator[Picture]:
    return pictures_in(
        folder, names, lambda done, total: reporter.progress(f"reading picture {done} of {total}", done / total)
    )


def _document(found: Verification) -> str:
    values: dict[str, Any] = {
        "summary": found.summary,
        "is_whole": found.is_whole,
        "num_pictures": found.num_pictures,
        "num_good": found.num_good,
        "doubtful": _doubts(found.doubtful),
        "failed": _doubts(found.failed),
        "missing": _doubts(found.missing),
        "renamed": found.renamed,
        "copies": found.copies,
        "gone": found.gone,
        "num_conflicts": found.num_conflicts,
        "num_lines": found.num_lines,
        "bad_lines": found.bad,
    }
    return json.dumps(values, indent=2, ensure_ascii=False).encode(errors="replace").decode()


def _doubts(doubts: Sequence[Doubt]) -> list[dict[str, str]]:
    return [{"name": doubt.picture.name, "why": doubt.why} for doubt in doubts]


def _table(found: Verification) -> str:
    rows: list[tuple[str, str, str]] = [("WHAT", "NAME", "WHY")]
    kinds = (("missing", found.missing), ("failed", found.failed), ("doubtful", found.doubtful))
    for kind, doubts in kinds:
        rows += [(kind, doubt.picture.name, doubt.why) for doubt in doubts[:_SHOWN]]
        rows += [(kind, f"and {len(doubts) - _SHOWN} more", "")] if len(doubts) > _SHOWN else []
    rows += [("renamed", now, f"was {before}") for before, now in found.renamed[:_SHOWN]]
    rows += [("copy", name, f"of {other}") for name, other in found.copies[:_SHOWN]]
    rows += [("gone", name, "its caption is here") for name in found.gone[:_SHOWN]]
    rows += [("bad line", "", line) for line in found.bad[:_SHOWN]]
    lines = aligned(rows) if len(rows) > 1 else ["Nothing is missing."]
    return "\n".join(map(printable, lines))
