"""What a grid leaves in its run's folder: `grids/<job>/` with what was asked, a line for each cell, the sheet and
embeddings."""

from pathlib import Path
from typing import Any

from studio.domain.run_files import GRIDS
from studio.domain.run_grid import Grid
from studio.result_folder import ResultFolder
from studio.runs import Run

_GRID, SHEET, _EMBEDDINGS = "grid.json", "sheet.png", "embeddings.npz"


class GridFolder(ResultFolder[Grid]):
    """The folder of one grid."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Grid, _GRID)

    @property
    def sheet(self) -> Path:
        """Where the contact sheet lies, once it is made."""
        return self.path / SHEET

    @property
    def embeddings(self) -> Path:
        """Where `studio.run_grid_embeddings` keeps them, once there are any."""
        return self.path / _EMBEDDINGS


def grid_folder(run: Run[Any], job_id: str) -> GridFolder:
    """That of the grid which a job draws of `run`."""
    return GridFolder(run.folder / GRIDS / job_id)


def newest_grid(run: Run[Any]) -> GridFolder | None:
    """The last grid of `run`, None where there is none."""
    folders = sorted((run.folder / GRIDS).glob(f"*/{_GRID}"), reverse=True)
    return GridFolder(folders[0].parent) if folders else None
