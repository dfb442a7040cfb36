"""Prompts for models of full size made better by rule: a medium, a light and a framing where the words name none."""

import random
import re
from collections.abc import Sequence
from typing import Any

from studio.domain.catalogue import Checkpoint
from studio.domain.enhancement import Suggestion
from studio.domain.wording import listed
from studio.prompt_words import prompt_words
from studio.token_count import count_tokens

_IDEAS = (
    "a lighthouse on a rocky coast", "a fox asleep in fresh snow", "an old library with tall windows",
    "a fisherman mending his nets", "a bowl of lemons on a wooden table", "a stone bridge over a mountain river",
    "a knight resting under an oak", "a night train leaving a small station", "an owl on a fence post",
    "a village in a green valley", "a kitchen in the early morning", "a heron in a misty lake",
)  # fmt: skip
_WORD = re.compile(r"[\w'’-]+")


def suggest_words(words: str, checkpoint: Checkpoint, seed: int, count: int) -> tuple[Suggestion, ...]:
    """Up to `count` prompts that say what `words` say and name what decides how a picture looks, each with its reason.
    They fit into what the text encoder reads at once, unless `words` themselves do not."""
    rng = random.Random(f"words {seed} {words}")
    themes: list[dict[str, Any]] = prompt_words()["themes"]
    themes = rng.sample(themes, len(themes))
    ideas = rng.sample(_IDEAS, len(_IDEAS))
    found: dict[str, Suggestion] = {}
    for turn in range(max(count, 1) * 3):
        subject = words or ideas[turn % len(ideas)]
        suggestion = _suggested(subject, checkpoint, themes[turn % len(themes)], rng)
        if suggestion.prompt != words:
            found.setdefault(suggestion.prompt, suggestion)
        if len(found) == count:
            break
    return tuple(found.values())


def _suggested(words: str, checkpoint: Checkpoint, theme: dict[str, Any], rng: random.Random) -> Suggestion:
    kind = _kind(words)
    named = _named(words)
    added = {
        "framing": rng.choice(kind["framing"]),
        "light": rng.choice(theme["light"]),
        "detail": rng.choice(kind["detail"]),
        "style": rng.choice(theme["style"]),
    }
    added = {name: text for name, text in added.items() if name not in named}
    if "medium" in named:  # its finish suits another one
        added.pop("style", None)
    medium = "" if "medium" in named else theme["medium"]
    while True:
        prompt = _written(words, checkpoint, medium, theme["article"], list(added.values()))
        if not added or not count_tokens(checkpoint, prompt).beginnings:
            break
        added.popitem()
    told = {"medium": medium, **{name: added[name] for name in ("light", "framing") if name in added}}
    return Suggestion(prompt=prompt, why=_why(told, checkpoint, has_more="detail" in added))


def _written(words: str, checkpoint: Checkpoint, medium: str, article: str, phrases: Sequence[str]) -> str:
    """SDXL reads sentences, the others lists of what is to be seen."""
    words = words.strip(" ,.")
    if not medium:
        return ", ".join([words, *phrases])
    if checkpoint.family == "sdxl":
        return ", ".join([f"{article} {medium} of {words}", *phrases])
    return ", ".join([words, medium, *phrases])


def _why(told: dict[str, str], checkpoint: Checkpoint, *, has_more: bool) -> str:
    names = [f"the {name} ({text})" for name, text in told.items() if text]
    if not names:
        return "Adds detail that is to be seen; medium, light and framing were named already." if has_more else ""
    said = f"Names {listed(names)}, which the prompt left to chance."
    return f"{said} {checkpoint.title} wants longer prompts." if checkpoint.family == "sd21" else said


def _kind(words: str) -> dict[str, Any]:
    kinds: list[dict[str, Any]] = prompt_words()["kinds"]
    said = set(_WORD.findall(words.lower()))
    return next((kind for kind in kinds if said & set(kind["words"])), kinds[-1])


def _named(words: str) -> set[str]:
    """Which of medium, light and framing a prompt names."""
    said = set(_WORD.findall(words.lower()))
    table: dict[str, list[str]] = prompt_words()["named"]
    return {name for name, signs in table.items() if said & set(signs)}
