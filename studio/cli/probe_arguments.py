"""The flags of `probe`."""

import argparse
from typing import Any

from studio.domain.catalogue import Catalogue
from studio.domain.probe import ATTRIBUTE_SETS, MARGIN, USUAL_PICTURES

PROBE_FLAGS = {"attributes": "--attributes", "margin": "--margin", "judge": "--judge"}
"""Field of the request → its flag, of those that hardly any other command has."""


def add_probe(parser: argparse.ArgumentParser, catalogue: Catalogue) -> None:
    """The names of the values are those of `ProbeRequest`; the ids that are told are those of `catalogue`."""
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    models = ", ".join(row.id for row in catalogue.checkpoints)
    sets = ", ".join(ATTRIBUTE_SETS)
    parser.add_argument("prompt", nargs="?", default="", help="one prompt, in quotes")
    parser.add_argument(
        "--model", dest="checkpoint", metavar="ID", **given,
        help=f"which weights draw: {models} ({catalogue.default_checkpoint})",
    )  # fmt: skip
    parser.add_argument(
        "--accelerator", metavar="ID", help="an adapter by which it draws in few steps (none)", **given
    )  # fmt: skip
    parser.add_argument(
        "--steps", dest="num_inference_steps", type=int, metavar="N", **given,
        help="steps of a picture (the model's own)",
    )  # fmt: skip
    parser.add_argument(
        "--guidance", dest="guidance_scale", type=float, metavar="X", help="guidance scale (the model's own)", **given
    )
    parser.add_argument(
        "--attributes", metavar="ID|FILE", **given,
        help=f"what is asked: {sets}, or a TOML file with [[attributes]], each with a name, values, and a template or "
        "texts (what suits the model)",
    )  # fmt: skip
    parser.add_argument(
        "--num", dest="num_images", type=int, metavar="N", help=f"pictures, one a seed ({USUAL_PICTURES})", **given
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the first seed (0)", **given)
    parser.add_argument("--judge", metavar="NAME", help="a folder of judges (the one that knows the model)", **given)
    parser.add_argument(
        "--margin", type=float, metavar="X", help=f"points of CLIP score below which an answer is unsure ({MARGIN:g})",
        **given,
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="DIR", help="write report.html, images.csv, results.json and the pictures here"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the tables")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    parser.add_argument("--verbose", action="store_true", help="show the log")
