"""How things are listed in a sentence."""

from collections.abc import Sequence


def listed(names: Sequence[str]) -> str:
    """Names, one at least, as people say them: "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
