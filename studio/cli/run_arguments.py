"""The flags that the commands share which train something in the background."""

import argparse


def add_run_flags(parser: argparse.ArgumentParser, product: str) -> None:
    """The flags that such commands share; `product` is what comes of them."""
    parser.add_argument("--go-on", metavar="RUN", help="take up a run that was stopped, instead of a new one")
    parser.add_argument("--list", action="store_true", help="list the runs there are, and do nothing")
    parser.add_argument("--out", metavar="DIR", help="also copy the adapter here, for kohya and for diffusers")
    parser.add_argument("--quiet", action="store_true", help=f"no progress, only the {product}'s id")
    parser.add_argument("--verbose", action="store_true", help="show the log")
