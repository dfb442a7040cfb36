"""Rows as CSV for spreadsheets."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line of names, those of the first row, and a line for each row; of no rows the name "index" alone. A text that
    a spreadsheet would take for a formula is kept from that."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_guarded, rows[0] if rows else ("index",)))
    writer.writerows(map(_guarded, row.values()) for row in rows)
    return text.getvalue()


_STARTS = tuple("=+-@\t\n＝＋－＠")
"""Some spreadsheets look past white space, and some take full-width signs for the others."""


def _guarded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # a bare one is not quoted, and begins a row elsewhere
    return f"'{text}" if text.lstrip(" ").startswith(_STARTS) else text
