"""`dataset download` and `dataset collect`: pictures from elsewhere."""

import argparse
from pathlib import Path

from studio.cli.progress import Silent
from studio.cli.report import DONE
from studio.dataset_collect import Filters, collect
from studio.hub_pictures import fetch_pictures
from studio.settings import Settings


def run(options: argparse.Namespace, reporter: Silent) -> int:
    """Do what was asked, and print the folder; gives the exit code.

    Raises:
        StudioError: it cannot be done.
    """
    if options.action == "download":
        folder = fetch_pictures(
            Settings.from_environment(),
            options.dataset,
            options.pictures,
            lambda done, total: reporter.progress(f"fetched {done} of {total}", done / max(1, total)),
        )
        print(folder)
        return DONE
    filters = Filters(
        min_size=options.min_size,
        max_aspect=options.max_aspect,
        min_sharpness=options.min_sharpness,
        sample=options.sample,
        seed=options.seed,
    )
    made = collect(
        Path(options.src),
        Path(options.dst),
        options.layout_of,
        filters,
        options.licence,
        lambda taken: reporter.progress(f"{taken} pictures taken", taken / options.sample if options.sample else 0.0),
    )
    reporter.note(made.summary)
    print(made.folder)
    return DONE
