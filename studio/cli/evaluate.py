"""`evaluate`: several systems on the same prompts; which is better, by how much, and whether that is more than luck."""

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from studio.cli.arguments import complain
from studio.cli.columns import aligned
from studio.cli.delivery import prepared
from studio.cli.generate import follow
from studio.cli.passing import passing_services
from studio.cli.progress import choose_reporter
from studio.cli.report import DONE, FAILED, STOPPED
from studio.cli.toml import read_toml
from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest
from studio.domain.evaluation import PRESETS, EvaluationCell, EvaluationRequest, parse_evaluation
from studio.domain.sweep import parse_axis
from studio.evaluation_export import Findings, document, manifest, picture_name, read_document, rows_csv
from studio.evaluation_report import report_html
from studio.evaluation_scores import (
    MEASURES,
    WORDS,
    Analysis,
    MeasureId,
    SystemScore,
    agreement,
    analyse,
    disagreement,
    headline,
    p_words,
)
from studio.files import atomic_write, storage_errors
from studio.generation import EngineHolder
from studio.prompt_sets import read_prompts
from studio.settings import Settings
from studio.sweep_page import sweep_page
from studio.sweep_views import sweep_words

_EXAMPLE = "[[systems]]"


@dataclass(frozen=True, kw_only=True)
class _Told:
    """An evaluation as far as it went. `pictures` are files by the index of their cell, `full` is all of it as JSON."""

    findings: Findings
    pictures: Mapping[int, Path]
    full: str

    @cached_property
    def analysis(self) -> Analysis:
        return analyse(self.findings.evaluation, self.findings.results, self.findings.likeness)


def run(options: argparse.Namespace, catalogue: Catalogue, engine: EngineHolder | None) -> int:
    """Draw what is asked, or read what was drawn, print what it says; gives the exit code.

    Raises:
        StudioError: nothing was drawn, or what was drawn could not be copied.
    """
    folder = None if options.out is None else prepared(Path(options.out))
    told, code = _read(options.results) if options.results else _draw(options, catalogue, engine)
    if folder is not None:
        _deliver(told, folder)
    analysis = told.analysis
    if options.json:
        print(told.full)
    else:
        print(table(analysis))
        sentences = (headline(analysis), disagreement(analysis), agreement(analysis))
        said = (sweep_words(analysis),) if analysis.evaluation.axes else sentences
        for line in filter(None, said):
            print(line)
    if options.fail_if_worse is not None and code == DONE:
        return _gate(analysis, options.fail_if_worse)
    return code


def _draw(options: argparse.Namespace, catalogue: Catalogue, engine: EngineHolder | None) -> tuple[_Told, int]:
    request, settings = _asked(options), Settings.from_environment()
    with passing_services(settings, engine) as services:
        evaluation = services.evaluations.resolve(request)
        checkpoint = catalogue.checkpoint(evaluation.systems[0].recipe.checkpoint)
        reporter = choose_reporter(checkpoint, settings, is_quiet=options.quiet)
        count = len(evaluation.cells)
        reporter.note(f"{evaluation.name}: {len(evaluation.prompts)} prompts, {count:,} pictures.")
        begun = services.evaluations.submit_resolved(evaluation)
        outcome = follow(begun.job, lambda _: None, reporter)
        if outcome.is_abandoned:
            os._exit(STOPPED)
        if outcome.error:
            complain(outcome.error)
        ended = services.evaluations.standing(begun.id)
        records = services.evaluations.pictures(ended)
        told = _Told(
            findings=ended.findings,
            pictures={index: services.gallery.path(record) for index, record in records.items()},
            full=document(ended.findings, records),
        )
    return told, outcome.exit_code


def _read(path: str) -> tuple[_Told, int]:
    findings = read_document(Path(path))
    evaluation = findings.evaluation
    cells = {cell.index: Path(path).parent / picture_name(cell, evaluation) for cell in evaluation.cells}
    return _Told(
        findings=findings,
        pictures={index: place for index, place in cells.items() if place.is_file()},
        full=Path(path).read_text(encoding="utf-8"),
    ), DONE


def _asked(options: argparse.Namespace) -> EvaluationRequest:
    """What the manifest says, and flags over it; raises InvalidRequest."""
    if options.manifest is None:
        raise InvalidRequest(
            "Nothing says what is compared.", "Give --manifest FILE with [[systems]], or --results FILE.", "systems"
        )
    given = {name: getattr(options, name) for name in EvaluationRequest.model_fields if hasattr(options, name)}
    values: dict[str, Any] = read_toml(options.manifest, "systems", _EXAMPLE)
    if options.axis:
        given["axes"] = [parse_axis(*text.partition("=")[::2]) for text in options.axis]
    if options.preset:
        values["num_prompts"], values["num_images"] = PRESETS[options.preset]
    if isinstance(own := given.get("prompts", values.get("prompts")), str):
        place = Path(own) if "prompts" in given else Path(options.manifest).parent / own
        given["prompts"] = [prompt.model_dump() for prompt in read_prompts(place.expanduser())]
    return parse_evaluation({**values, **given})


def _deliver(told: _Told, folder: Path) -> None:
    """Write everything into `folder`; raises StorageFailed."""
    analysis, findings = told.analysis, told.findings
    evaluation = findings.evaluation
    cells = {cell.index: cell for cell in evaluation.cells}

    def place(cell: EvaluationCell) -> Path | None:
        return told.pictures.get(cell.index)

    with storage_errors(folder):
        for index, path in told.pictures.items():
            target = folder / picture_name(cells[index], evaluation)
            if not target.exists() or not target.samefile(path):
                shutil.copyfile(path, target)
    texts = {
        "report.html": report_html(analysis, findings.anchors, place),
        "images.csv": rows_csv(findings),
        "results.json": told.full,
        "manifest.toml": manifest(evaluation),
    }
    if evaluation.axes:
        texts["sweep.html"] = sweep_page(analysis, findings.results, place)
    for name, text in texts.items():
        atomic_write(folder / name, text.encode())


def table(analysis: Analysis) -> str:
    """Each system against the baseline, as lines of text."""
    if not analysis.systems:
        return "No prompt is drawn by all systems yet."
    measures: list[MeasureId] = [
        measure for measure in MEASURES if any(measure in each.means for each in analysis.systems)
    ]
    heads = ["", "VERDICT"]
    for measure in measures:
        heads += [WORDS[measure].title.upper(), "DIFFERENCE", "P"]
    lines = [[*heads, "SECONDS", "PICTURES"], *(_line(score, analysis, measures) for score in analysis.systems)]
    return "\n".join(aligned(lines))


def _line(score: SystemScore, analysis: Analysis, measures: Sequence[MeasureId]) -> list[str]:
    is_base = score.system.name == analysis.evaluation.baseline
    first = next((score.against[measure] for measure in measures if measure in score.against), None)
    cells = [score.system.name, "baseline" if is_base else first.verdict if first else ""]
    for measure in measures:
        estimate, paired = score.means.get(measure), score.against.get(measure)
        cells.append(estimate.words(WORDS[measure].form) if estimate else "")
        cells.append(paired.difference.words(WORDS[measure].gain) if paired else "")
        cells.append(p_words(paired.adjusted).removeprefix("p ").removeprefix("= ") if paired else "")
    failed = f", {score.failed} failed" if score.failed else ""
    return [*cells, f"{score.seconds.median:.2f}" if score.seconds else "", f"{score.n}{failed}"]


def _gate(analysis: Analysis, most: float) -> int:
    """Whether no system is surely worse than the baseline by more than `most` points."""
    measure = analysis.measure
    for score in analysis.systems:
        paired = score.against.get(measure) if measure else None
        if paired and paired.difference.high is not None and paired.difference.high < -most:
            complain(
                f"{score.system.name} is worse than {analysis.evaluation.baseline} by more than {most:g} points: "
                f"{paired.difference.words(WORDS[measure].gain if measure else str)}."
            )
            return FAILED
    if measure is None or not any(score.against for score in analysis.systems):
        print("Nothing could be compared.", file=sys.stderr)
        return FAILED
    return DONE
