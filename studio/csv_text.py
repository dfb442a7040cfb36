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


def _guarded(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
