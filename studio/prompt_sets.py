"""Prompts to evaluate with: sets that are shipped, in an order in which any beginning holds all of their kinds."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from engines.pocket.sampling import MIXTURE
from engines.pocket.trials import trial
from studio.domain.errors import InvalidRequest
from studio.domain.evaluation import MAX_PROMPTS, EvaluationPrompt
from studio.settings import PROJECT_ROOT

_FOLDER = PROJECT_ROOT / "studio" / "data" / "prompt_sets"
_WORLD_SEED = 20_261_127
"""Training, the choice of settings and other tests draw from other sequences."""


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """One that is shipped. `size` is how many prompts it has; `source` says whose they are."""

    id: str
    title: str
    size: int
    source: str
    read: Callable[[int], tuple[EvaluationPrompt, ...]]
    """Its first prompts, so many."""

    def take(self, count: int) -> tuple[EvaluationPrompt, ...]:
        """Its first `count` prompts.

        Raises:
            InvalidRequest: it has fewer.
        """
        if count > self.size:
            raise InvalidRequest(
                f"{self.title} has {self.size} prompts, not {count}.", "Take fewer, and more pictures of each.",
                "num_prompts",
            )  # fmt: skip
        return self.read(count)


@cache
def world_prompts(count: int) -> tuple[EvaluationPrompt, ...]:
    """Prompts of the pocket world, of each kind in turn, all of combinations that training has, none twice."""
    kinds, found = tuple(MIXTURE), dict[str, EvaluationPrompt]()
    for index in range(4 * MAX_PROMPTS):
        if len(found) == count:
            break
        kind = kinds[len(found) % len(kinds)]
        drawn = trial(kind, False, np.random.default_rng([_WORLD_SEED, index]))
        found.setdefault(drawn.prompt, EvaluationPrompt(text=drawn.prompt, group=kind))
    return tuple(found.values())


def read_prompts(path: Path) -> tuple[EvaluationPrompt, ...]:
    """Prompts of a person's own: one a line, or in a table with a `prompt` column (.csv, .tsv) and perhaps a `group`.

    Raises:
        InvalidRequest: it cannot be read, or there is no prompt in it, or too many.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise InvalidRequest(f"{path.name} cannot be read.", "Give a text file in UTF-8.", "prompts") from None
    separator = {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower())
    found = _table(text, separator) if separator else [EvaluationPrompt(text=line) for line in _lines(text)]
    if not 1 <= len(found) <= MAX_PROMPTS:
        what = f"{len(found)} prompts" if found else "no prompt"
        raise InvalidRequest(
            f"There is {what} in {path.name}." if not found else f"There are {what} in {path.name}.",
            f"Give 1 to {MAX_PROMPTS}, one a line, or a table with a column called prompt.",
            "prompts",
        )
    return tuple(found)


def _table(text: str, separator: str) -> list[EvaluationPrompt]:
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    rows = csv.DictReader(text.splitlines(), delimiter=separator, quoting=quoting)
    given = (({key.strip().lower(): value for key, value in row.items() if key and value}) for row in rows)
    return [
        EvaluationPrompt(text=row["prompt"].strip(), group=row.get("group", "").strip())
        for row in given
        if row.get("prompt", "").strip()
    ]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


@cache
def _shipped(name: str) -> tuple[EvaluationPrompt, ...]:
    return read_prompts(_FOLDER / f"{name}.tsv")


def _first(name: str, count: int) -> tuple[EvaluationPrompt, ...]:
    return _shipped(name)[:count]


PROMPT_SETS: Mapping[str, PromptSet] = {
    each.id: each
    for each in (
        PromptSet(
            id="world", title="Pocket world", size=MAX_PROMPTS, read=world_prompts,
            source="Drawn by this studio: what pocket models know, and a checker can judge exactly.",
        ),
        PromptSet(
            id="parti", title="PartiPrompts, 128 of 1,632", size=128, read=partial(_first, "parti"),
            source="Of every category and challenge (Yu et al., 2022, arXiv:2206.10789; Google, Apache-2.0).",
        ),
        PromptSet(
            id="geneval", title="GenEval", size=553, read=partial(_first, "geneval"),
            source="Objects, counts, colours and places (Ghosh et al., 2023, arXiv:2310.11513; MIT).",
        ),
    )
}  # fmt: skip
