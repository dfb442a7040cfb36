"""What A1111's text says of a picture that began from another one, or was made larger by a second pass."""

import re
from collections.abc import Mapping

from studio.domain.beginning import UpscalerName
from studio.domain.request import ResolvedRequest
from studio.domain.steering import NO_CONTROL

STRENGTH, HASH, MASK_BLUR = "Denoising strength", "Init image hash", "Mask blur"
MASK_HASH = "Mask hash"
"""Ours: A1111 says nothing of a mask but how soft its edge is."""
SCALE, STEPS, UPSCALER = "Hires upscale", "Hires steps", "Hires upscaler"
HIRES_STRENGTH = "Hires strength"
"""Ours, and only where both passes have one: A1111 makes nothing larger that began from a picture."""
CONTROL, CONTROL_HASH, CONTROL_SCALE = "Control", "Control map hash", "Control scale"
"""Ours: the extension that A1111 has for it writes one line of everything."""
_UPSCALERS: Mapping[UpscalerName, str] = {"latent": "Latent", "lanczos": "Lanczos"}
_NAME = re.compile(r"[0-9a-f]{64}")


def beginning_told(recipe: ResolvedRequest) -> dict[str, str]:
    """Keys and values of `recipe`; "" for what does not apply."""
    starts, grows = bool(recipe.init_image), recipe.has_hires
    strength = recipe.strength if starts else recipe.hires_strength
    return {
        STRENGTH: f"{strength:g}" if starts or grows else "",
        HASH: recipe.init_image,
        MASK_BLUR: str(recipe.mask_blur) if recipe.mask else "",
        MASK_HASH: recipe.mask,
        SCALE: f"{recipe.hires_scale:g}" if grows else "",
        STEPS: str(recipe.hires_steps) if grows else "",
        UPSCALER: _UPSCALERS[recipe.hires_upscaler] if grows else "",
        HIRES_STRENGTH: f"{recipe.hires_strength:g}" if starts and grows else "",
        CONTROL: recipe.control if recipe.control != NO_CONTROL else "",
        CONTROL_HASH: recipe.control_image,
        CONTROL_SCALE: f"{recipe.control_scale:g}" if recipe.control_image else "",
    }


def beginning_found(found: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The fields of a request that the pairs of a text give, and what they tell of that we do not know: the name of a
    picture is a hash of ours, and of upscalers we have two."""
    values: dict[str, str] = {}
    unread: list[str] = []
    for key, field in ((HASH, "init_image"), (MASK_HASH, "mask")):
        if _NAME.fullmatch(found.get(key, "")):
            values[field] = found[key]
    if CONTROL in found and _NAME.fullmatch(found.get(CONTROL_HASH, "")):
        values |= {"control": found[CONTROL], "control_image": found[CONTROL_HASH], "control_source": "map"}
        values |= {"control_scale": found[CONTROL_SCALE]} if CONTROL_SCALE in found else {}
    is_start, is_hires = "init_image" in values, SCALE in found
    if HASH in found and not is_start:
        unread.append("the picture that it started from")
    strengths = {"strength": found.get(STRENGTH) if is_start else None}
    strengths["hires_strength"] = found.get(HIRES_STRENGTH if is_start else STRENGTH) if is_hires else None
    others = {"mask_blur": found.get(MASK_BLUR) if "mask" in values else None}
    others |= {"hires_scale": found.get(SCALE), "hires_steps": found.get(STEPS) if is_hires else None}
    values |= {field: text for field, text in (strengths | others).items() if text is not None}
    upscaler = found.get(UPSCALER, "")
    if upscaler and is_hires:
        ours = next((name for name, title in _UPSCALERS.items() if upscaler.startswith(title)), None)
        values |= {"hires_upscaler": ours} if ours else {}
        unread += [] if ours else [f"upscaler {upscaler}"]
    return values, unread
