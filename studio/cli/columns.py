"""Tables as lines of text."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], *, is_sparse: bool = False) -> list[str]:
    """`rows`, the first one headings, as lines whose columns stand beneath each other. With `is_sparse` columns but the
    first are left out that say nothing."""
    places = range(len(rows[0]))
    shown = [place for place in places if not is_sparse or place == 0 or any(row[place] for row in rows[1:])]
    widths = [max(len(row[place]) for row in rows) for place in shown]
    return [
        "  ".join(row[place].ljust(width) for place, width in zip(shown, widths, strict=True)).rstrip() for row in rows
    ]


def printable(text: str, instead: str = "?") -> str:
    """`text` without what a terminal would take for a command, or could not show: it comes from anywhere."""
    return "".join(character if character.isprintable() else instead for character in text)
