"""`probe`: which share of the pictures of one prompt shows what."""

import argparse
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.cli.arguments import complain
from studio.cli.columns import aligned
from studio.cli.delivery import prepared
from studio.cli.generate import follow
from studio.cli.passing import passing_services
from studio.cli.progress import choose_reporter
from studio.cli.report import STOPPED
from studio.cli.toml import read_toml
from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest
from studio.domain.probe import ATTRIBUTE_SETS, ProbeRequest, parse_probe
from studio.files import atomic_write, storage_errors
from studio.generation import EngineHolder
from studio.probe import ProbeStanding
from studio.probe_scores import AttributeResult, ProbeResult, chosen, is_unsure
from studio.probe_views import (
    agreement_words,
    balance_words,
    limits_lines,
    probe_report,
    progress_words,
    unsure_words,
)
from studio.settings import Settings

_EXAMPLE = "[[attributes]]"
_HEADER = ("", "SHARE", "PICTURES", "CHECKER")


def run(options: argparse.Namespace, catalogue: Catalogue, engine: EngineHolder | None) -> int:
    """Draw what is asked, have it judged, print the shares; gives the exit code.

    Raises:
        StudioError: nothing was drawn, or what was drawn could not be copied.
    """
    request, settings = _asked(options), Settings.from_environment()
    folder = None if options.out is None else prepared(Path(options.out))
    stdout = sys.stdout
    with passing_services(settings, engine) as services:
        probe = services.probes.resolve(request)
        reporter = choose_reporter(catalogue.checkpoint(probe.recipe.checkpoint), settings, is_quiet=options.quiet)
        begun = services.probes.submit_resolved(probe)
        outcome = follow(begun.job, lambda _: None, reporter)
        if outcome.is_abandoned:
            os._exit(STOPPED)
        ended = services.probes.standing(begun.id)
        result, pictures = services.probes.result(ended), services.probes.pictures(ended)
        document = _document(outcome.status, ended, result, pictures)
        if folder is not None:
            _deliver(ended, result, pictures, document, folder)
        print(document if options.json else told(result), file=stdout, flush=True)
        if outcome.error:
            complain(outcome.error)
    return outcome.exit_code


def told(result: ProbeResult) -> str:
    """The shares and what is to be known of them, as lines of text."""
    lines = [progress_words(result)]
    for each in result.attributes:
        lines += ["", each.attribute.name, *_table(each), balance_words(each), unsure_words(each)]
        lines.append(agreement_words(each))
    lines += ["", *([result.remark] if result.remark else []), "What this cannot tell:"]
    return "\n".join([*lines, *(f"- {line}" for line in limits_lines(result.probe.margin))])


def _table(result: AttributeResult) -> list[str]:
    rows = [_HEADER] + [
        (
            value.name,
            value.share.words("{:.0%}".format),
            f"{value.count} of {value.share.n}",
            value.seen.words("{:.0%}".format) if value.seen else "",
        )
        for value in result.values
    ]
    return aligned(rows, is_sparse=True)


def _asked(options: argparse.Namespace) -> ProbeRequest:
    """What the flags and the file of attributes say; raises InvalidRequest."""
    given = {name: getattr(options, name) for name in ProbeRequest.model_fields if hasattr(options, name)}
    chosen_set = given.get("attributes")
    if chosen_set is not None and chosen_set not in ATTRIBUTE_SETS:
        written = read_toml(chosen_set, "attributes", _EXAMPLE)
        if "attributes" not in written:
            raise InvalidRequest(f"{chosen_set} has no {_EXAMPLE}.", "Each has a name and values.", "attributes")
        given["attributes"] = written["attributes"]
    return parse_probe(given)


def _deliver(
    ended: ProbeStanding, result: ProbeResult, pictures: Mapping[int, Path], document: str, folder: Path
) -> None:
    """Write everything into `folder`; raises StorageFailed."""
    with storage_errors(folder):
        for index, path in pictures.items():
            shutil.copyfile(path, folder / _name(ended, index))
    atomic_write(folder / "report.html", probe_report(result).encode())
    atomic_write(folder / "results.json", document.encode())


def _name(ended: ProbeStanding, index: int) -> str:
    return f"{index:04d}-{ended.probe.cells[index].recipe.seed}.png"


def _document(status: str, ended: ProbeStanding, result: ProbeResult, pictures: Mapping[int, Path]) -> str:
    def attribute(each: AttributeResult) -> dict[str, Any]:
        values = {field.name: getattr(each, field.name) for field in dataclasses.fields(each)}
        told = {"name": each.attribute.name, **{key: value for key, value in values.items() if key != "attribute"}}
        return json.loads(json.dumps(told, default=dataclasses.asdict))

    def picture(index: int) -> dict[str, Any]:
        answer = ended.answers[index]
        return {
            "index": index,
            "seed": ended.probe.cells[index].recipe.seed,
            "file": _name(ended, index) if index in pictures else None,
            "chosen": {each.name: chosen(answer, each) for each in ended.probe.attributes},
            "unsure": {each.name: is_unsure(answer, each, ended.probe.margin) for each in ended.probe.attributes},
            "seen": answer.seen,
            "cosines": answer.cosines,
        }

    values = {
        "status": status,
        "probe": ended.probe.model_dump(mode="json"),
        "judge": result.judge,
        "drawn": result.drawn,
        "failed": result.failed,
        "judged": result.judged,
        "truncated": result.truncated,
        "remark": result.remark,
        "attributes": [attribute(each) for each in result.attributes],
        "pictures": [picture(index) for index in sorted(ended.answers)],
        "limits": limits_lines(result.probe.margin),
    }
    return json.dumps(values, indent=2, ensure_ascii=False)
