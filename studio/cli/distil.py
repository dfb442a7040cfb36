"""`distil`: begin a training run, tell how it goes, and say what came of it."""

import argparse
from pathlib import Path

from studio.cli.distil_arguments import DISTIL_FLAGS
from studio.cli.runs import carry_out
from studio.domain.catalogue import Catalogue
from studio.domain.distillation import DistillationPlan, DistillationRequest, parse_distillation
from studio.domain.errors import InvalidRequest


def run(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Train, print the accelerator's id; gives the exit code.

    Raises:
        StudioError: nothing was begun, or the adapter could not be copied.
    """
    return carry_out(
        options, "distil", DistillationPlan, lambda services: services.distillation, lambda: _asked(options)
    )


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
