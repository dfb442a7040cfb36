"""The flags of `train`, read off the request's fields."""

import argparse
from typing import Any

from studio.cli.run_arguments import add_run_flags
from studio.domain.catalogue import Catalogue
from studio.domain.training import OPTIMIZER_TITLES, SCHEDULE_TITLES, TrainingPlan, label
from studio.domain.training_presets import PRESET_TITLES
from studio.hub_pictures import USUAL_PICTURES

TRAIN_FLAGS = {
    "folder": ("--data", "FOLDER"),
    "checkpoint": ("--model", "ID"),
    "preset": ("--preset", "ID"),
    "subject": ("--subject", "ID"),
    "trigger": ("--trigger", "WORD"),
    "num_steps": ("--steps", "N"),
    "batch_size": ("--batch", "N"),
    "accumulation": ("--accumulation", "N"),
    "size": ("--size", "PX"),
    "crop": ("--crop", "ID"),
    "rank": ("--rank", "N"),
    "alpha": ("--alpha", "X"),
    "dropout": ("--dropout", "X"),
    "reach": ("--reach", "ID"),
    "learning_rate": ("--rate", "X"),
    "text_learning_rate": ("--text-rate", "X"),
    "optimizer": ("--optimizer", "ID"),
    "schedule": ("--schedule", "ID"),
    "warmup": ("--warmup", "X"),
    "snr_gamma": ("--snr-gamma", "X"),
    "noise_offset": ("--noise-offset", "X"),
    "caption_dropout": ("--caption-dropout", "X"),
    "mask_floor": ("--mask-floor", "X"),
    "num_prior": ("--prior", "N"),
    "prior_prompts": ("--prior-prompt", "PROMPT"),
    "prior_weight": ("--prior-weight", "X"),
    "validation_share": ("--validation", "X"),
    "patience": ("--patience", "N"),
    "look_every": ("--look-every", "N"),
    "sample_prompts": ("--sample", "PROMPT"),
    "seed": ("--seed", "N"),
}
"""Field of the request → its flag and what stands for the value in the help."""
_SAID = {
    "folder": "A folder of pictures with captions: text files beside them, images/ and captions/, a list or a table.",
    "preset": f"How thoroughly: {', '.join(PRESET_TITLES)} (balanced).",
    "subject": "thing: its word calls it; or style: it shows in every picture, and nothing stays as it was (thing).",
    "crop": "centre, or buckets: pictures keep their form, as nearly as multiples of 64 pixels allow (buckets).",
    "reach": "Which layers change: attention, attention_and_feed_forward or all.",
    "optimizer": f"One of {', '.join(OPTIMIZER_TITLES)} (adamw).",
    "schedule": f"How the learning rate goes: {', '.join(SCHEDULE_TITLES)}.",
    "sample_prompts": "A prompt to draw samples of; up to four times. Without, captions of the pictures.",
    "prior_prompts": "A prompt for pictures of what it knew, as often as you like; a pocket model needs none.",
    "seed": "The same seed and settings give the same adapter (0).",
}
_LISTS = ("sample_prompts", "prior_prompts")
_TEXTS = ("folder", "checkpoint", "preset", "subject", "trigger", "crop", "reach", "optimizer", "schedule", *_LISTS)
_NUMBERS = ("num_steps", "num_prior", "batch_size", "accumulation", "size", "rank", "patience", "look_every", "seed")


def add_train(parser: argparse.ArgumentParser, catalogue: Catalogue) -> None:
    """The names of the values are those of `TrainingRequest`."""
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    parser.add_argument("name", nargs="?", metavar="NAME", help="What the adapter is called.", **given)
    for field, (name, metavar) in TRAIN_FLAGS.items():
        kind: type = str if field in _TEXTS else int if field in _NUMBERS else float
        more: dict[str, Any] = {"action": "append"} if field in _LISTS else {"type": kind}
        parser.add_argument(name, dest=field, metavar=metavar, help=_help(field, catalogue), **more, **given)
    parser.add_argument("--dora", dest="decompose", action="store_true", help=_help("decompose", catalogue), **given)
    parser.add_argument("--gradual", action=argparse.BooleanOptionalAction, help=_help("gradual", catalogue), **given)
    parser.add_argument("--masked", action="store_true", help=_help("masked", catalogue), **given)
    parser.add_argument(
        "--shuffle-tags", action="store_true", help="captions are tags: in another order each time", **given
    )
    parser.add_argument(
        "--dataset", metavar="OWNER/NAME", help="instead of a folder, a data set of the Hugging Face hub: fetched once"
    )
    parser.add_argument(
        "--pictures", metavar="N", type=int, default=USUAL_PICTURES,
        help=f"how many of it, the first ones ({USUAL_PICTURES})",
    )  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="take settings from a TOML file; flags go over it")
    parser.add_argument(
        "--dry-run", action="store_true", help="train nothing; print what it would take, and if it fits"
    )
    add_run_flags(parser, "adapter")


def _help(field: str, catalogue: Catalogue) -> str:
    if field == "checkpoint":
        return f"One of {', '.join(row.id for row in catalogue.checkpoints)}."
    if field in _SAID:
        return _SAID[field]
    return f"{label(field)}. {TrainingPlan.model_fields[field].description}".replace("%", "%%")
