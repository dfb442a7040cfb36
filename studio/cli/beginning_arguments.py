"""Flags for what a picture begins from, and for its second pass."""

import argparse
import re

from studio.domain.beginning import BORDERS, MAX_BORDER_PX
from studio.domain.errors import InvalidRequest

BEGINNING_FLAGS = {
    "init_image": ("--init-image", "FILE"),
    "strength": ("--strength", "X"),
    "mask": ("--mask", "FILE"),
    "mask_blur": ("--mask-blur", "PX"),
    "resize_mode": ("--resize-mode", "ID"),
    "hires_scale": ("--hires-scale", "X"),
    "hires_strength": ("--hires-strength", "X"),
    "hires_steps": ("--hires-steps", "N"),
    "hires_upscaler": ("--hires-upscaler", "ID"),
    "control": ("--control", "ID"),
    "control_image": ("--control-image", "FILE"),
    "control_source": ("--control-source", "ID"),
    "control_scale": ("--control-scale", "X"),
}
"""Field of the request → its flag and what stands for the value in the help."""
OUTPAINT_FLAG = "--outpaint"
_SIDE = re.compile(r"(left|right|up|down)=(-?\d+)")


def add_outpaint(parser: argparse.ArgumentParser) -> None:
    """The flag for the four sides at once."""
    parser.add_argument(
        OUTPAINT_FLAG, metavar="SIDE=PX,…", default="",
        help=f"Pixels to add to the picture that is started from, such as left=32,right=32; sides: left, right, up, "
        f"down; multiples of 8, up to {MAX_BORDER_PX}. What was there keeps every pixel.",
    )  # fmt: skip


def outpaint_values(text: str) -> dict[str, int]:
    """The fields that `left=32,up=16` stands for; {} for "".

    Raises:
        InvalidRequest: it is something else.
    """
    sides = [part.strip() for part in text.split(",")] if text else []
    read = [_SIDE.fullmatch(side) for side in sides]
    if not all(read):
        raise InvalidRequest(
            f"{text!r} says no sides with pixels.",
            "Write it like left=32,right=32 (left, right, up, down).",
            BORDERS[0],
        )
    return {f"outpaint_{side[1]}": int(side[2]) for side in read if side}
