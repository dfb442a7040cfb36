"""A folder that tells of many pictures: what was asked, and a line for each of them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from studio.domain.cells import CellResult
from studio.files import atomic_write, storage_errors
from studio.json_lines import append_line, read_lines, replace_lines

_RESULTS = "results.jsonl"
Asked = TypeVar("Asked", bound=BaseModel)


class ResultFolder(Generic[Asked]):
    """Its name is the id of the job that draws them, and so sorts by age. What was asked lies in the file `name`."""

    def __init__(self, folder: Path, asked_type: type[Asked], name: str) -> None:
        self._folder = folder
        self._asked_type = asked_type
        self._asked = folder / name

    @property
    def job_id(self) -> str:
        return self._folder.name

    @property
    def path(self) -> Path:
        return self._folder

    @property
    def begun_at(self) -> float:
        """When it was begun, in seconds since 1970; 0 where that cannot be read."""
        try:
            return self._asked.stat().st_mtime
        except OSError:
            return 0.0

    @property
    def asked(self) -> Asked:
        """What was asked; raises OSError or ValueError where that cannot be read."""
        return self._asked_type.model_validate_json(self._asked.read_bytes())

    def begin(self, asked: Asked) -> None:
        """Make the folder ready to be written to; of what is there already, a line that was cut short goes.

        Raises:
            StorageFailed: it cannot be written.
        """
        with storage_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self._asked, asked.model_dump_json().encode())
        results = self.results().values()
        if results:
            self.keep_results(results)

    def note(self, result: CellResult) -> None:
        """Write down what came of a cell.

        Raises:
            StorageFailed: it cannot be written, or the folder was deleted.
        """
        append_line(self._folder / _RESULTS, result)

    def keep_results(self, results: Iterable[CellResult]) -> None:
        """Have the folder tell exactly these. Raises StorageFailed."""
        replace_lines(self._folder / _RESULTS, results)

    def results(self) -> dict[int, CellResult]:
        """What came of the cells so far, by their index."""
        return {result.index: result for result in read_lines(self._folder / _RESULTS, CellResult)}
