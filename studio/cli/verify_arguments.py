"""The flags of `verify`."""

import argparse

VERIFY_FLAGS = ("--json",)


def add_verify(parser: argparse.ArgumentParser) -> None:
    """What `studio.cli.verify` takes."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="PNG, JPEG or WebP pictures, of whatever origin")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
