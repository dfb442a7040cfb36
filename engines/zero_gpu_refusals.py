"""What `spaces` says when there is no GPU, in our words. It raises errors of Gradio, which this layer does not know."""

import re

from studio.domain.errors import GenerationFailed, QueueFull, RateLimited, StudioError

_ITS_OWN = "ZeroGPU"
"""What the titles of its errors begin with."""
_WAIT = re.compile(r"Try again in ((?:\d+ days?, )?\d+:\d\d:\d\d)")
_NUMBERS = re.compile(r"\(\d+s requested vs\. -?\d+s left\)")
_USUAL_WAIT_S = 3600.0


def refused(error: Exception) -> StudioError | None:
    """What to tell of an error of `spaces`; None of others."""
    title, message = (str(getattr(error, name, "")) for name in ("title", "message"))
    if not title.startswith(_ITS_OWN):
        return None
    if "quota" in title or "credits" in title:
        return _over_quota(message)
    if "duration" in title:
        return GenerationFailed(
            "This takes longer on the GPU than Hugging Face allows at once.",
            "Ask for fewer steps or a smaller picture, or sign in to Hugging Face.",
        )
    if "worker" in title:
        # What our own function raises comes back as a message; here are its end by a signal, and a GPU that fails.
        return GenerationFailed(
            "The GPU was taken away before the picture was finished.",
            "Ask for fewer steps, a smaller picture or fewer at once, or try again.",
        )
    return QueueFull("No GPU of Hugging Face is free for this Space now.", "Try again in a minute.")


def _over_quota(message: str) -> RateLimited:
    numbers, wait = _NUMBERS.search(message), _WAIT.search(message)
    told = f" {numbers[0]}" if numbers else ""
    again = f"Try again in {wait[1]}" if wait else "Try again later"
    return RateLimited(
        f"The GPU time that Hugging Face allows is used up{told}.",
        f"{again}, or sign in to Hugging Face, where more is allowed.",
        _seconds(wait[1]) if wait else _USUAL_WAIT_S,
    )


def _seconds(span: str) -> float:
    """Of `1 day, 2:03:04`, as Python writes a timedelta."""
    days, _, clock = span.rpartition(", ")
    hours, minutes, seconds = map(int, clock.split(":"))
    return float((int(days.split()[0]) if days else 0) * 86400 + hours * 3600 + minutes * 60 + seconds)
