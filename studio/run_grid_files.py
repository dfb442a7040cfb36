"""What a grid leaves in its run's folder: `grids/<job>/` with what was asked, a line for each cell, and the sheet."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from studio.domain.run_files import GRIDS
from studio.domain.run_grid import CellResult, Grid
from studio.files import atomic_write, storage_errors
from studio.runs import Run

_GRID, _RESULTS, SHEET = "grid.json", "results.jsonl", "sheet.png"


class GridFolder:
    """The folder of one grid; its name is the id of the job that draws it, and so sorts by age."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def job_id(self) -> str:
        return self._folder.name

    @property
    def sheet(self) -> Path:
        """Where the contact sheet lies, once it is made."""
        return self._folder / SHEET

    @property
    def grid(self) -> Grid:
        """What was asked; raises OSError or ValueError where that cannot be read."""
        return Grid.model_validate_json((self._folder / _GRID).read_bytes())

    def begin(self, grid: Grid) -> None:
        """Make the folder ready to be written to; of what is there already, a line that was cut short goes.

        Raises:
            StorageFailed: it cannot be written.
        """
        with storage_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self._folder / _GRID, grid.model_dump_json().encode())
        lines = [result.model_dump_json() + "\n" for result in self.results().values()]
        if lines:
            atomic_write(self._folder / _RESULTS, "".join(lines).encode())

    def note(self, result: CellResult) -> None:
        """Write down what came of a cell.

        Raises:
            StorageFailed: it cannot be written, or the run was deleted.
        """
        with storage_errors(self._folder), (self._folder / _RESULTS).open("a", encoding="utf-8") as file:
            file.write(result.model_dump_json() + "\n")

    def results(self) -> dict[int, CellResult]:
        """What came of the cells so far, by their index."""
        try:
            lines = (self._folder / _RESULTS).read_bytes().splitlines()
        except OSError:
            return {}
        found = (_result(line) for line in lines)
        return {result.index: result for result in found if result is not None}


def grid_folder(run: Run[Any], job_id: str) -> GridFolder:
    """That of the grid which a job draws of `run`."""
    return GridFolder(run.folder / GRIDS / job_id)


def newest_grid(run: Run[Any]) -> GridFolder | None:
    """The last grid of `run`, None where there is none."""
    folders = sorted((run.folder / GRIDS).glob(f"*/{_GRID}"), reverse=True)
    return GridFolder(folders[0].parent) if folders else None


def _result(line: bytes) -> CellResult | None:
    try:
        return CellResult.model_validate_json(line)
    except ValidationError:
        return None
