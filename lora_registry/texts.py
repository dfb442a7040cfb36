"""What a file's metadata say: texts of whoever made it, so they suggest and never decide."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from studio.domain.adapter import FamilyId, Part
from studio.domain.catalogue import PredictionType

MAX_WORDS = 8
MAX_WORD_CHARS = 100
_MAX_KEYS = 200
_MAX_KEY_CHARS = 100
_MAX_TEXT_CHARS = 2_000
_MAX_TITLE_CHARS = 200
_MAX_ALPHA = 1e6

_FAMILIES: tuple[tuple[str, FamilyId], ...] = (
    ("sdxl", "sdxl"),
    ("stable-diffusion-xl", "sdxl"),
    ("sd_v2", "sd21"),
    ("stable-diffusion-v2", "sd21"),
    ("sd_v1", "sd15"),
    ("stable-diffusion-v1", "sd15"),
)
"""How `ss_base_model_version` and `modelspec.architecture` begin → the family."""
_V_PREDICTION = ("sd_v2_v", "sd_v2_768_v", "stable-diffusion-v2-768-v")


@dataclass(frozen=True, kw_only=True)
class PeftSettings:
    """What diffusers keeps of PEFT's configuration, for files whose tensors hold no alpha."""

    alpha: float | None = None
    alpha_pattern: Mapping[str, float] = field(default_factory=dict[str, float])
    use_rslora: bool = False

    def alpha_of(self, path: str, rank: int) -> float | None:
        """The alpha that gives ΔW = up·down·alpha/rank; None where the file states none."""
        alpha = self.alpha
        for pattern, value in self.alpha_pattern.items():
            if f".{path}".endswith(f".{pattern.removeprefix('^')}"):
                alpha = value
        # Rank-stabilised LoRA divides by the root of the rank.
        return alpha * math.sqrt(rank) if alpha is not None and self.use_rslora else alpha


def shown(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata at a length that can be shown."""
    kept = sorted(metadata.items())[:_MAX_KEYS]
    return {_clean(key, _MAX_KEY_CHARS): _clean(text, _MAX_TEXT_CHARS) for key, text in kept}


def stated_title(metadata: Mapping[str, str]) -> str:
    return _first(metadata, "modelspec.title", "ss_output_name")


def stated_base_model(metadata: Mapping[str, str]) -> str | None:
    """The checkpoint it was trained on; trainers write the path on their own disk, of which the end is kept."""
    return re.split(r"[/\\]", _first(metadata, "ss_sd_model_name", "modelspec.base_model"))[-1] or None


def stated_family(metadata: Mapping[str, str]) -> frozenset[FamilyId]:
    """The family it says that it was trained for; empty where it says none."""
    return frozenset(family for start, family in _FAMILIES if _version(metadata).startswith(start))


def stated_prediction_type(metadata: Mapping[str, str]) -> PredictionType | None:
    stated = metadata.get("modelspec.prediction_type", "").lower()
    if stated in ("v", "v_prediction") or _version(metadata).startswith(_V_PREDICTION):
        return "v_prediction"
    return "epsilon" if stated in ("epsilon", "eps") else None


def trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The words that its maker names, else the captions' most frequent tags; at most 8."""
    named = [text for key, text in sorted(metadata.items()) if "trigger" in key.lower()]
    words = [word for text in named for word in _listed(text)] or _frequent_tags(metadata.get("ss_tag_frequency", ""))
    cleaned = dict.fromkeys(_clean(word, MAX_WORD_CHARS) for word in words)
    return tuple(word for word in cleaned if word)[:MAX_WORDS]


def peft_settings(metadata: Mapping[str, str], part: Part) -> PeftSettings:
    """The settings of `part` in diffusers' `lora_adapter_metadata`; empty where there are none that can be read."""
    stated = _object(_json(metadata.get("lora_adapter_metadata", "")))
    return PeftSettings(
        alpha=_number(stated.get(f"{part}.lora_alpha")),
        alpha_pattern={
            pattern: alpha
            for pattern, value in _object(stated.get(f"{part}.alpha_pattern")).items()
            if (alpha := _number(value)) is not None
        },
        use_rslora=stated.get(f"{part}.use_rslora") is True,
    )


def stated_sha256(metadata: Mapping[str, str]) -> str | None:
    """The hash of the tensors that the file names as its own, in lower case."""
    stated = metadata.get("modelspec.hash_sha256", "").lower().removeprefix("0x") or metadata.get("sshs_model_hash", "")
    return stated if re.fullmatch(r"[0-9a-f]{64}", stated) else None


def _version(metadata: Mapping[str, str]) -> str:
    return (metadata.get("ss_base_model_version") or metadata.get("modelspec.architecture") or "").lower()


def _first(metadata: Mapping[str, str], *keys: str) -> str:
    texts = (_clean(metadata.get(key, ""), _MAX_TITLE_CHARS) for key in keys)
    return next((text for text in texts if text and text != "None"), "")


def _listed(text: str) -> list[str]:
    """A JSON list of words, or words with commas between."""
    listed = _json(text)
    return [str(word) for word in cast("list[Any]", listed)] if isinstance(listed, list) else text.split(",")


def _frequent_tags(text: str) -> list[str]:
    """The tags of kohya's folder → tag → count."""
    counts: Counter[str] = Counter()
    for tags in _object(_json(text)).values():
        for tag, count in _object(tags).items():
            counts[tag.strip()] += count if isinstance(count, int) else 0
    return [tag for tag, _ in counts.most_common(MAX_WORDS)]


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < _MAX_ALPHA else None


def _clean(text: str, length: int) -> str:
    """One line without control characters, at most `length` long."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 4 * length]).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
