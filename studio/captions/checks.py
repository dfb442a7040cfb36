"""What a caption says of itself: whether its words can be those of a picture at all."""

import re
import zlib
from collections import Counter
from dataclasses import dataclass

from studio.domain.captions import Flag

_REFUSALS = re.compile(
    r"\b(i|we)('m| am| are)? ?(sorry|unable|not able|apologi[sz]e)\b"
    r"|\b(can(no|')t|can not|won't|will not|unable to|not able to) (help|assist|describe|identify|provide|comply|view"
    r"|see|analy[sz]e|process|fulfil)"
    r"|\bas an? (ai|artificial|language|large language)\b|\bno image (was|is|has been|attached|provided)\b"
    r"|\b(against|violates?) (my|our|the) (guidelines|policy|policies)\b"
    r"|\bplease (provide|upload|share) (the|an) image\b",
    re.IGNORECASE,
)
_REFUSAL_HINTS = (
    "sorry", "unable", "not able", "apolog", "can't", "cannot", "can not", "won't", "will not", "as a", "no image",
    "guideline", "polic", "please",
)  # fmt: skip
"""One of these is in whatever `_REFUSALS` finds."""
_PREAMBLES = re.compile(
    r"^\W*(sure|certainly|of course|okay|ok|absolutely|great)\b[,!.: ]"
    r"|^\W*(here('s| is| are)|this is) (a|an|the|your) (detailed |brief |short |full )*(description|caption|summary)\b"
    r"|^\W*(description|caption|answer)\s*:",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"</?[a-z][\w-]*[^<>]{0,80}>|```|^\s*#{1,6} |\*\*\w|^\s*[{\[]\s*\"", re.IGNORECASE)
_WORD = re.compile(r"\w+", re.UNICODE)
_GRAM = 4
_MAX_SAME_GRAMS = 3
"""So often may the same four words come again in a caption."""
_MAX_PACKED = 0.25
"""Bytes that a long caption takes packed, of those it has: English takes about a half, a loop a tenth."""
_LONG = 400


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Words that a caption has, from and to."""

    low: int = 3
    high: int = 400


def flags_of(caption: str, bounds: Bounds | None = None) -> tuple[Flag, ...]:
    """What is wrong with a caption, by its words alone; nothing where it may be one."""
    bounds = bounds or Bounds()
    words = _WORD.findall(caption.lower())
    if not words:
        return (Flag.EMPTY,)
    found = (
        (Flag.TOO_SHORT, len(words) < bounds.low),
        (Flag.TOO_LONG, len(words) > bounds.high),
        (Flag.REFUSAL, _refuses(caption)),
        (Flag.REPETITION, _repeats(caption, words)),
        (Flag.PREAMBLE, _PREAMBLES.search(caption) is not None),
        (Flag.MARKUP, _MARKUP.search(caption) is not None),
    )
    return tuple(flag for flag, is_so in found if is_so)


def _refuses(caption: str) -> bool:
    plain = caption.lower().replace("’", "'")
    # Looking for words first is twenty times as fast as the expression, and there are many captions.
    return any(hint in plain for hint in _REFUSAL_HINTS) and _REFUSALS.search(plain) is not None


def _repeats(caption: str, words: list[str]) -> bool:
    if len(words) < 2 * _GRAM:
        return len(words) >= _GRAM and len(set(words)) == 1
    grams = list(zip(*(words[start:] for start in range(_GRAM)), strict=False))
    is_repeated = len(set(grams)) <= len(grams) - _MAX_SAME_GRAMS  # else none comes so often; counting takes longer
    if is_repeated and Counter(grams).most_common(1)[0][1] > _MAX_SAME_GRAMS:
        return True
    data = caption.encode("utf-8", "replace")
    return len(data) >= _LONG and len(zlib.compress(data, 1)) < _MAX_PACKED * len(data)
