"""Which pictures may be made at once. Light: no torch here."""

from studio.domain.request import ResolvedRequest
from studio.domain.steering import NO_CONTROL

BATCHES = (8, 4, 2)
"""How many are made at once, the most first. With more, a visitor waits longer for the first than all gain."""
_ITS_OWN = (
    "prompt", "negative_prompt", "style", "seed", "num_images", "typed_prompt", "original_prompt",
    "strength", "mask_blur", "hires_strength", "hires_steps", "hires_upscaler", "control_source", "control_scale",
)  # fmt: skip
"""What may differ between pictures that are made at once: words, seeds, and settings of what they do not have."""


def may_share(request: ResolvedRequest) -> bool:
    """Whether others may be made with it: it begins from noise, keeps to nothing, and has one pass."""
    return not (request.init_image or request.has_hires or request.control != NO_CONTROL)


def are_alike(one: ResolvedRequest, other: ResolvedRequest) -> bool:
    """Whether two that may share differ in their words and seeds alone."""
    return one.model_dump(exclude=set(_ITS_OWN)) == other.model_dump(exclude=set(_ITS_OWN))
