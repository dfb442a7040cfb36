"""The flags of `adapters merge`."""

import argparse
from collections.abc import Sequence
from typing import Any

from studio.domain.adapter import MAX_LORA_SCALE
from studio.domain.errors import InvalidRequest
from studio.domain.merging import DENSITY, MERGE_METHODS

MERGE_FLAGS = {
    "--adapter": "ID:WEIGHT",
    "--method": "ID",
    "--rank": "N",
    "--density": "X",
    "--majority-sign": "ID",
    "--seed": "N",
}
"""Flag → what stands for the value in the help."""
_SAID = {
    "--adapter": f"An adapter and how much of it, -{MAX_LORA_SCALE:g} to {MAX_LORA_SCALE:g} (1: as it was trained); "
    "given at least twice.",
    "--method": f"How: {'; '.join(f'{method}: {words}' for method, words in MERGE_METHODS.items())} (svd).",
    "--rank": "Size of the result, for methods that end in svd (the largest of the adapters').",
    "--density": f"The share of numbers that ties and dare keep, above 0 and up to 1 ({DENSITY:g}).",
    "--majority-sign": "What ties counts: total (sizes) or frequency (adapters) (total).",
    "--seed": "That of dare's chances (0).",
}


def add_merge(parser: argparse.ArgumentParser) -> None:
    """The names of the values are those of `MergeRequest`, but for the adapters: `given_portions` reads them."""
    parser.add_argument("name", metavar="NAME", help="what the new adapter is called")
    for name, metavar in MERGE_FLAGS.items():
        if name == "--adapter":
            repeated: dict[str, Any] = {"dest": "portions", "action": "append", "default": []}
            parser.add_argument(name, metavar=metavar, help=_SAID[name], **repeated)
        else:
            parser.add_argument(name, metavar=metavar, help=_SAID[name], default=argparse.SUPPRESS)


def given_portions(texts: Sequence[str]) -> list[tuple[str, float]]:
    """Adapters and weights, from ID:WEIGHT each; without a weight it is 1.

    Raises:
        InvalidRequest: a weight that is no number.
    """
    portions: list[tuple[str, float]] = []
    for text in texts:
        adapter_id, _, weight = text.partition(":")
        try:
            portions.append((adapter_id, float(weight or 1)))
        except ValueError:
            raise InvalidRequest(f"The weight in {text!r} is no number.", "Give ID:WEIGHT.", "portions") from None
    return portions
