"""The flags of `grid`."""

import argparse
from typing import Any

from studio.domain.run_grid import STANDARD_ORDINARY, STANDARD_SCALES

GRID_FLAGS = {
    "steps_of_run": "--steps-of-run",
    "scales": "--scales",
    "prompts": "--prompt",
    "num_ordinary": "--ordinary",
}
"""Field of the request → its flag, of those that no other command has."""


def add_grid(parser: argparse.ArgumentParser) -> None:
    """The names of the values are those of `GridRequest`."""
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    usual = ",".join(f"{scale:g}" for scale in STANDARD_SCALES)
    parser.add_argument("run", metavar="RUN", help="The id of a run, as `train --list` tells it.")
    parser.add_argument(
        "--steps-of-run", type=_steps, metavar="N,N", help="After which steps; all that are kept.", **given
    )
    parser.add_argument("--scales", type=_numbers, metavar="X,X", help=f"How much of each adapter ({usual}).", **given)
    parser.add_argument(
        "--prompt", dest="prompts", action="append", metavar="PROMPT",
        help="A prompt to draw, as often as you like; else those that the run drew samples of.", **given,
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="The first seed (0).", **given)
    parser.add_argument("--num", dest="num_images", type=int, metavar="N", help="Seeds for each prompt (4).", **given)
    parser.add_argument(
        "--ordinary", dest="num_ordinary", type=int, metavar="N", **given,
        help=f"Prompts that do not call what was learnt, with one picture each ({STANDARD_ORDINARY}; 0: none).",
    )  # fmt: skip
    parser.add_argument(
        "--steps", dest="num_inference_steps", type=int, metavar="N", help="Steps of a picture (the model's own).",
        **given,
    )  # fmt: skip
    parser.add_argument(
        "--guidance", dest="guidance_scale", type=float, metavar="X", help="Guidance scale (the model's own).", **given
    )
    parser.add_argument("--sampler", dest="scheduler", metavar="ID", help="Sampler (the model's own).", **given)
    parser.add_argument(
        "--use", type=int, metavar="STEP",
        help="draw nothing; put the adapter of that step among the adapters, in place of what the run left, and print "
        "its id",
    )  # fmt: skip
    parser.add_argument("--out", metavar="DIR", help="also copy the contact sheet and the pictures here")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the sheet's path")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    parser.add_argument("--verbose", action="store_true", help="show the log")


def _steps(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


_steps.__name__, _numbers.__name__ = "list of steps", "list of numbers"  # as argparse calls them where they are wrong
