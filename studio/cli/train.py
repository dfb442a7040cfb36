"""`train`: teach a checkpoint something new from pictures, tell how it goes, and say what came of it."""

import argparse
from pathlib import Path
from typing import Any

from studio.cli.passing import passing_services
from studio.cli.report import DONE
from studio.cli.runs import carry_out, new_reporter
from studio.cli.toml import read_toml
from studio.cli.train_arguments import TRAIN_FLAGS
from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest
from studio.domain.training import TrainingPlan, TrainingRequest, parse_training
from studio.hub_pictures import fetch_pictures
from studio.settings import Settings


def run(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Train, print the adapter's id; or only what it would take. Gives the exit code.

    Raises:
        StudioError: nothing was begun, or the adapter could not be copied.
    """
    if options.dry_run:
        return _told(asked(options))
    return carry_out(options, "train", TrainingPlan, lambda services: services.training, lambda: asked(options))


def asked(options: argparse.Namespace) -> TrainingRequest:
    """What a configuration file says, and flags over it; a data set of the hub is fetched and becomes the folder.

    Raises:
        InvalidRequest: the file cannot be read, or a value does not work.
        DownloadFailed, DatasetError, StorageFailed: the data set cannot be had.
    """
    given = {name: getattr(options, name) for name in ("name", *TRAIN_FLAGS) if hasattr(options, name)}
    values = {"name": "", **_configured(options.config), **given}
    if options.dataset is None:
        return parse_training(values)
    if "folder" in given:
        raise InvalidRequest(
            "Both a folder of pictures and a data set of the hub are given.", "Give one of them.", "dataset"
        )
    parse_training(values)  # what is wrong is told before anything is fetched
    reporter = new_reporter(is_quiet=options.quiet)

    def tell(done: int, total: int) -> None:
        reporter.progress(f"picture {done} of {total}", done / max(1, total))

    folder = fetch_pictures(Settings.from_environment(), options.dataset, options.pictures, tell)
    return parse_training({**values, "folder": str(folder)})


def _told(request: TrainingRequest) -> int:
    """Print what a training would take, and train nothing.

    Raises:
        StudioError: it cannot be asked for, or does not fit.
    """
    with passing_services(Settings.from_environment(), None) as services:
        preflight = services.training.preflight(request)
    for title, words in preflight.facts.items():
        print(f"{title}: {words}")
    if preflight.problem is not None:
        raise preflight.problem
    return DONE


def _configured(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    values = read_toml(path, "config", "rank = 16")
    if folder := values.get("folder"):  # beside the file, wherever the command is given
        values["folder"] = str(Path(path).parent / Path(str(folder)).expanduser())
    return values
