"""Whether a checkpoint still does what its model did before: prompts that do not call what was learnt."""

from collections.abc import Mapping
from typing import TypedDict

from studio.domain.cells import CellResult
from studio.domain.run_grid import GridColumn
from studio.paired import Paired, compare_all
from studio.statistics import Estimate, mean, mean_share_difference, share


class Ordinary(TypedDict):
    """Fields of a `ColumnScore`."""

    ordinary: Estimate | None
    ordinary_is_share: bool
    ordinary_against: Paired | None


def ordinary_scores(by_column: Mapping[GridColumn, Mapping[int, CellResult]]) -> Mapping[GridColumn, Ordinary]:
    """Of the results of ordinary prompts by row, of which each has one picture; the columns with an adapter are
    compared with that without, and corrected for how many they are."""
    is_judged = all(result.right is not None for rows in by_column.values() for result in rows.values())
    values = {column: _values(rows, is_judged) for column, rows in by_column.items()}
    control = next((values[column] for column in by_column if column.use is None), dict[int, float]())
    pairs = {
        column: [told[row] - control[row] for row in sorted(told) if row in control]
        for column, told in values.items()
        if column.use
    }
    able = {column: told for column, told in pairs.items() if len(told) > 1}
    estimate = mean_share_difference if is_judged else mean
    against = dict(zip(able, compare_all(list(able.values()), estimate=estimate), strict=True)) if able else {}
    return {
        column: Ordinary(
            ordinary=_estimate(told, is_judged), ordinary_is_share=is_judged, ordinary_against=against.get(column)
        )
        for column, told in values.items()
    }


def _values(rows: Mapping[int, CellResult], is_judged: bool) -> dict[int, float]:
    if is_judged:
        return {row: float(bool(result.right)) for row, result in rows.items()}
    return {row: 100 * result.cosine for row, result in rows.items() if result.cosine is not None}


def _estimate(values: Mapping[int, float], is_judged: bool) -> Estimate | None:
    if not values:
        return None
    return share(round(sum(values.values())), len(values)) if is_judged else mean(list(values.values()))
