"""How every build from the command line begins."""

import argparse
import logging
import signal
from pathlib import Path

import torch

from engines.pocket.build.recipes import RECIPES


def new_parser(module: str, description: str | None, *, has_family: bool = True) -> argparse.ArgumentParser:
    """A command line with what all builds take."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    if has_family:
        parser.add_argument("family", nargs="?", choices=RECIPES, default="sd15")
    parser.add_argument("--work", type=Path, help="checkpoints go here (data/pocket-build/…)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser


def started(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What was asked; from here on the log is shown, and a stop saves what there is, like Ctrl+C."""
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return options
