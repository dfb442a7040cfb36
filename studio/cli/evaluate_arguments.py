"""The flags of `evaluate`."""

import argparse
from typing import Any

from studio.domain.evaluation import CLIP_MARGIN, PRESETS, RIGHT_MARGIN
from studio.prompt_sets import PROMPT_SETS

EVALUATE_FLAGS = {
    "systems": "--manifest",
    "prompt_set": "--prompt-set",
    "num_prompts": "--num-prompts",
    "baseline": "--baseline",
    "judge": "--judge",
    "second_judge": "--second-judge",
    "clip_margin": "--clip-margin",
    "right_margin": "--right-margin",
    "results": "--results",
    "axes": "--axis",
    "preset": "--preset",
}
"""Field of the request → its flag, of those that no other command has."""


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """The names of the values are those of `EvaluationRequest`."""
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    presets = ", ".join(f"{name} {prompts} × {images}" for name, (prompts, images) in PRESETS.items())
    parser.add_argument("--manifest", metavar="FILE", help="a TOML file that says what is compared, with [[systems]]")
    parser.add_argument(
        "--results", metavar="FILE", help="draw nothing: tell again what the results.json of an evaluation says"
    )
    parser.add_argument("--baseline", metavar="NAME", help="what the others are compared with (the first one)", **given)
    parser.add_argument(
        "--prompt-set", choices=tuple(PROMPT_SETS), metavar="ID", **given,
        help=f"{', '.join(PROMPT_SETS)}; what suits the models",
    )  # fmt: skip
    parser.add_argument("--prompts", metavar="FILE", help="prompts of your own: one a line, or .csv or .tsv", **given)
    parser.add_argument(
        "--preset", choices=tuple(PRESETS), metavar="SIZE", help=f"prompts × pictures of each: {presets}"
    )
    parser.add_argument("--num-prompts", type=int, metavar="N", help="prompts of the set", **given)
    parser.add_argument("--num", dest="num_images", type=int, metavar="N", help="pictures of each prompt", **given)
    parser.add_argument(
        "--axis", action="append", metavar="FIELD=VALUES", default=[],
        help="sweep a setting of the first system, up to three times: num_inference_steps=2,4,8 or guidance_scale=1-4",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="the first seed (0)", **given)
    parser.add_argument("--judge", metavar="NAME", help="a folder of judges (the one that knows the models)", **given)
    parser.add_argument(
        "--second-judge", metavar="NAME", help="another one that is asked, too: do both find the same ahead?", **given
    )
    parser.add_argument(
        "--clip-margin", type=float, metavar="X", help=f"points of CLIP score that do not matter ({CLIP_MARGIN:g})",
        **given,
    )  # fmt: skip
    parser.add_argument(
        "--right-margin", type=float, metavar="X", **given,
        help=f"percentage points of pictures drawn right that do not matter ({RIGHT_MARGIN:g})",
    )  # fmt: skip
    parser.add_argument(
        "--fail-if-worse", type=float, metavar="D",
        help="exit with 1 where a system is surely worse than the baseline by more than D points: the interval of the "
        "difference lies below -D",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="DIR", help="write report.html, images.csv, results.json, manifest.toml and the pictures here"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the verdict")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    parser.add_argument("--verbose", action="store_true", help="show the log")
