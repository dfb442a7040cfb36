"""The flags of `dataset`."""

import argparse
from typing import get_args

from studio.cli.caption_arguments import add_caption_actions, add_source_actions
from studio.domain.datasets import MIN_SIZE, Crop, Layout


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """`dataset scan`, `dataset prepare`, and what captions pictures."""
    parser.description = "Pictures with captions for a training: look at them, caption them, bring them into its form."
    actions = parser.add_subparsers(
        dest="action", metavar="scan | prepare | download | collect | caption | merge | verify | split", required=True
    )
    scan = actions.add_parser(
        "scan", help="say what is wrong with the pictures of a folder, and change nothing",
        description="Open every picture of a folder: what it is, its caption, and whether it can be used.",
        allow_abbrev=False,
    )  # fmt: skip
    scan.add_argument("folder", metavar="FOLDER", help="the folder, or a zip file")
    scan.add_argument(
        "--min-size", type=int, default=MIN_SIZE, metavar="N",
        help=f"pixels that the shorter side of a picture needs ({MIN_SIZE})",
    )  # fmt: skip
    scan.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    _add_prepare(actions.add_parser(
        "prepare", help="write the pictures that can be used into a new folder, in one size",
        description="Write every usable picture upright, in RGB and in one size into a new folder, with its caption. "
        "The source is not changed.", allow_abbrev=False,
    ))  # fmt: skip
    add_source_actions(actions)
    add_caption_actions(actions)
    for action in actions.choices.values():
        action.add_argument("--quiet", action="store_true", help="no progress, only the result")


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--src", required=True, metavar="FOLDER", help="where the pictures are, or a zip file")
    parser.add_argument("--dst", required=True, metavar="FOLDER", help="where to write; a new or an empty folder")
    parser.add_argument(
        "--size", required=True, type=int, metavar="PX", help="side of the square that the model is trained at"
    )
    parser.add_argument(
        "--crop", choices=get_args(Crop), default="centre",
        help="centre: squares from the middle; buckets: sizes of that area in shapes near the picture's (centre)",
    )  # fmt: skip
    parser.add_argument(
        "--layout", choices=get_args(Layout), default="text_files",
        help="text_files: a text file beside each picture; metadata: all captions in metadata.jsonl (text_files)",
    )  # fmt: skip
    parser.add_argument("--trigger", default="", metavar="WORD", help="a word to put before every caption")
    parser.add_argument("--replace", action="store_true", help="replace the data set that is at --dst")
