"""What a picture is called while it is learnt from."""

import re

import numpy as np


def with_trigger(caption: str, trigger: str) -> str:
    """`caption` with the trigger word before it, unless it has it as a word."""
    if not trigger or re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption):
        return caption
    return f"{trigger}, {caption}" if caption else trigger


def shuffled(caption: str, trigger: str, rng: np.random.Generator) -> str:
    """Its tags, parted by commas, in another order; the trigger word stays where it is, in front."""
    tags = [tag.strip() for tag in caption.split(",")]
    kept = 1 if trigger and tags[0] == trigger else 0
    return ", ".join([*tags[:kept], *(tags[kept + int(index)] for index in rng.permutation(len(tags) - kept))])


def said(caption: str, trigger: str, *, dropout: float, shuffle: bool, rng: np.random.Generator) -> str:
    """What is said of a picture this time: nothing in `dropout` of all cases."""
    if rng.random() < dropout:
        return ""
    return shuffled(caption, trigger, rng) if shuffle else caption
