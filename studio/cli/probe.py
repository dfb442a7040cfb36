"""`probe`: which share of the pictures of one prompt shows what."""

import argparse
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

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
from studio.probe_export import document, picture_name, rows_csv
from studio.probe_scores import AttributeResult, ProbeResult
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
        everything = document(ended, result, pictures)
        if folder is not None:
            _deliver(ended, result, pictures, everything, folder)
        print(everything if options.json else told(result), file=stdout, flush=True)
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
    ended: ProbeStanding, result: ProbeResult, pictures: Mapping[int, Path], everything: str, folder: Path
) -> None:
    """Write everything into `folder`; raises StorageFailed."""
    with storage_errors(folder):
        for index, path in pictures.items():
            shutil.copyfile(path, folder / picture_name(ended.probe, index))
    atomic_write(folder / "report.html", probe_report(result).encode())
    atomic_write(folder / "images.csv", rows_csv(ended).encode())
    atomic_write(folder / "results.json", everything.encode())
