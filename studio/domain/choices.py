"""Prompts that leave something open: `{red|blue} ball`, `{3::often|seldom}`, `a __colour__ cup`, decided by the seed.

One of the texts between braces is taken, those with a number before `::` that many times as often as others; `__name__`
is a line of the list of that name. They may stand in each other. Braces without a bar, and `\\{`, are plain text.
"""

import math
import random
import re
from collections.abc import Callable, Sequence

from studio.domain.errors import InvalidRequest

MAX_PROMPT = 10_000
# What is possessive (*+, ++) gives nothing back: a long prompt would cost quadratic time otherwise.
_BRACES = re.compile(r"(?<!\\)\{([^{}|]*+\|[^{}]*+)\}")
_LIST = re.compile(r"__([A-Za-z0-9][\w./-]*?)__")
_SHARE = re.compile(r"\A\s*+(\d++(?:\.\d++)?)::")
_MOST = 1000
"""Choices of one prompt: lists that name each other would go on for ever."""

Lists = Callable[[str], Sequence[str]]
"""Gives the lines of a list by its name; raises InvalidRequest where there is none."""


def leaves_open(prompt: str) -> bool:
    """Whether anything in a prompt is to be chosen."""
    return bool(_BRACES.search(prompt) or _LIST.search(prompt))


def lists_named(prompt: str) -> tuple[str, ...]:
    """The names of the lists that a prompt draws from, each once."""
    return tuple(dict.fromkeys(_LIST.findall(prompt)))


def chosen(prompt: str, seed: int, lists: Lists) -> str:
    """`prompt` with everything decided: the same seed and lists decide the same on every machine.

    Raises:
        InvalidRequest: a list that is not there, or nothing that comes to an end or fits.
    """
    if not leaves_open(prompt):
        return prompt
    # Seeded by a text, Python's generator hashes it (SHA-512): seeds that are neighbours choose unlike each other.
    rng = random.Random(f"choices {seed}")
    for _ in range(_MOST):
        if found := _BRACES.search(prompt):
            text = _one_of(found[1].split("|"), rng)
        elif found := _LIST.search(prompt):
            text = _one_of(lists(found[1]), rng)
        else:
            return prompt.strip()
        prompt = prompt[: found.start()] + text + prompt[found.end() :]
        if len(prompt) > MAX_PROMPT:
            break
    raise InvalidRequest(
        "The choices in the prompt do not come to an end.", "Look for lists that name each other.", "prompt"
    )


def refuse_open(prompt: str, field: str = "prompt") -> None:
    """Refuse a prompt that leaves something open where every picture is to be of the same words.

    Raises:
        InvalidRequest: it does.
    """
    if leaves_open(prompt):
        said = prompt if len(prompt) <= 60 else f"{prompt[:57]} …"
        raise InvalidRequest(
            f"The prompt “{said}” leaves something open, and here every picture is to be of the same words.",
            "Write them out, without braces and lists.",
            field,
        )


def settled(prompt: str) -> str:
    """`prompt` with the first of everything that is left open, and lists by their names: what it is about."""
    while found := _BRACES.search(prompt):
        first = _SHARE.sub("", found[1].partition("|")[0])
        prompt = prompt[: found.start()] + first.strip() + prompt[found.end() :]
    return _LIST.sub(lambda found: found[1].rpartition("/")[2].replace("_", " "), prompt)


def outermost(prompt: str) -> tuple[tuple[int, int], ...]:
    """Where everything that is left open begins and ends, in order; what stands in something else is a part of it."""
    inner = [found.span() for found in _LIST.finditer(prompt)]
    text = prompt
    while found := _BRACES.search(text):
        inner.append(found.span())
        # Signs that are no braces take the place of these, so that the ones around them are found next.
        text = text[: found.start()] + "·" * (found.end() - found.start()) + text[found.end() :]
    around = [(a, b) for a, b in inner if not any(c <= a and b <= d and (a, b) != (c, d) for c, d in inner)]
    return tuple(sorted(around))


def every_word(prompt: str) -> str:
    """All the words that a prompt itself may come to: each text between braces, and nothing of lists."""
    said = _LIST.sub(" ", prompt)
    while found := _BRACES.search(said):
        options = " ".join(_SHARE.sub("", option, count=1) for option in found[1].split("|"))
        said = f"{said[: found.start()]} {options} {said[found.end() :]}"
    return said


def _one_of(options: Sequence[str], rng: random.Random) -> str:
    shares = [_share(option) for option in options]
    texts = [_SHARE.sub("", option, count=1).strip() for option in options]
    # `choices` has one call to `random` whatever the shares are, so that a share that changes moves no other choice.
    return rng.choices(texts, shares if any(shares) else None)[0]


def _share(option: str) -> float:
    told = _SHARE.match(option)
    share = float(told[1]) if told else 1.0
    return share if math.isfinite(share) else 1.0
