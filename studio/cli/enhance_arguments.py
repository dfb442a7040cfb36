"""The flags of `enhance`."""

import argparse

from studio.domain.catalogue import Catalogue
from studio.enhancer import MAX_COUNT

ENHANCE_FLAGS = ("--model", "--picture", "--count", "--seed", "--by-rule", "--json")


def add_enhance(parser: argparse.ArgumentParser, catalogue: Catalogue) -> None:
    """The names of the values are those that `EnhancerService.enhance` takes."""
    models = ", ".join(row.id for row in catalogue.checkpoints)
    parser.add_argument("prompt", nargs="?", default="", help="what the picture should show; none: ideas")
    parser.add_argument(
        "--model", dest="checkpoint", metavar="ID", default=catalogue.default_checkpoint,
        help=f"which weights are to draw it: {models} ({catalogue.default_checkpoint})",
    )  # fmt: skip
    parser.add_argument(
        "--picture", metavar="FILE",
        help="describe this picture instead: a scene of the pocket world exactly, others by a model that looks at them",
    )  # fmt: skip
    parser.add_argument("--count", type=int, default=3, metavar="N", help=f"suggestions, 1 to {MAX_COUNT} (3)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another one gives others (0)")
    parser.add_argument("--by-rule", action="store_true", help="ask no language model")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
