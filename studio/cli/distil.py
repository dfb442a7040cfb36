"""`distil`: begin a training run, tell how it goes, and say what came of it."""

import argparse
import sys
from pathlib import Path

from studio.cli.delivery import prepared
from studio.cli.distil_arguments import DISTIL_FLAGS
from studio.cli.passing import passing_services
from studio.cli.runs import follow, listed
from studio.domain.catalogue import Catalogue
from studio.domain.distillation import DistillationPlan, DistillationRequest, parse_distillation
from studio.domain.errors import InvalidRequest
from studio.runs import Runs
from studio.settings import Settings


def run(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Train, print the accelerator's id; gives the exit code.

    Raises:
        StudioError: nothing was begun, or the adapter could not be copied.
    """
    settings = Settings.from_environment()
    if options.list:
        return listed(Runs(settings.runs_dir, DistillationPlan).of())
    request = None if options.go_on else _asked(options)
    folder = None if options.out is None else prepared(Path(options.out))
    out = sys.stdout  # within, what is printed goes to standard error
    with passing_services(settings, None) as services:
        service = services.distillation
        begun = service.go_on(options.go_on) if request is None else service.submit(request)
        return follow(service, begun, "distil", folder, is_quiet=options.quiet, out=out)


def _asked(options: argparse.Namespace) -> DistillationRequest:
    given = {name: getattr(options, name) for name in ("name", *DISTIL_FLAGS) if hasattr(options, name)}
    if path := given.get("captions"):
        try:
            given["captions"] = tuple(Path(path).read_text(encoding="utf-8-sig").splitlines())
        except (OSError, UnicodeDecodeError):
            raise InvalidRequest(
                f"{path} cannot be read.", "Give a text file in UTF-8, a caption a line.", "captions"
            ) from None
    return parse_distillation({"name": "", **given})
