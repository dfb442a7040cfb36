"""The flags of `distil`, read off the request's fields."""

import argparse
from typing import Any

from studio.cli.run_arguments import add_run_flags
from studio.domain.catalogue import Catalogue
from studio.domain.distillation import DistillationPlan, label

DISTIL_FLAGS = {
    "checkpoint": ("--model", "ID"),
    "folder": ("--data", "FOLDER"),
    "dataset": ("--dataset", "OWNER/NAME"),
    "captions": ("--captions", "FILE"),
    "num_pictures": ("--pictures", "N"),
    "objective": ("--objective", "ID"),
    "guidance_scale": ("--guidance", "X"),
    "num_steps": ("--steps", "N"),
    "batch_size": ("--batch", "N"),
    "rank": ("--rank", "N"),
    "reach": ("--reach", "ID"),
    "learning_rate": ("--rate", "X"),
    "distribution_matching": ("--matching", "X"),
    "look_every": ("--look-every", "N"),
    "seed": ("--seed", "N"),
}
"""Field of the request → its flag and what stands for the value in the help."""
_SAID = {
    "folder": "A folder of pictures with captions: text files beside them, images/ and captions/, or metadata.jsonl.",
    "dataset": "A data set of the Hugging Face hub by its id: the first of its pictures, as many as --pictures says.",
    "captions": "A text file, a caption a line: without pictures, the model learns from its own.",
    "num_pictures": "How many pictures of its own it learns from, or of the data set, or scenes a pocket model does.",
    "reach": "Which layers change: attention, attention_and_feed_forward or all (all).",
    "seed": "The same seed and settings give the same accelerator (0).",
}
_NUMBERS = ("num_pictures", "num_steps", "batch_size", "rank", "look_every", "seed")
_FRACTIONS = ("guidance_scale", "learning_rate", "distribution_matching")


def add_distil(parser: argparse.ArgumentParser, catalogue: Catalogue) -> None:
    """The names of the values are those of `DistillationRequest`."""
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    parser.add_argument("name", nargs="?", metavar="NAME", help="What the accelerator is called.", **given)
    for field, (name, metavar) in DISTIL_FLAGS.items():
        kind: type = int if field in _NUMBERS else float if field in _FRACTIONS else str
        parser.add_argument(name, dest=field, metavar=metavar, type=kind, help=_help(field, catalogue), **given)
    add_run_flags(parser, "accelerator")


def _help(field: str, catalogue: Catalogue) -> str:
    if field == "checkpoint":
        return f"The teacher. One of {', '.join(row.id for row in catalogue.checkpoints)}."
    if field in _SAID:
        return _SAID[field]
    info = DistillationPlan.model_fields[field]
    choices = " lcm, own_path or flash." if field == "objective" else ""
    return f"{label(field)}. {info.description}{choices}".replace("%", "%%")
