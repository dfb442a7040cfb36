"""What evaluations and probes share: what was asked is drawn picture by picture as one job, and kept in a folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from studio.domain.cells import CellResult
from studio.domain.errors import NotFound
from studio.job import Job
from studio.jobs import JobRunner
from studio.recent import Recent
from studio.result_folder import ResultFolder
from studio.tables import Once

AskedT = TypeVar("AskedT", bound=BaseModel)
FolderT = TypeVar("FolderT", bound=ResultFolder[Any])


@dataclass(frozen=True, kw_only=True)
class ResultStanding(Generic[AskedT, FolderT]):
    """How something stands: what was asked, what came of its cells, by index, and the `job` that draws it, or did so.
    What has to be read for that is read when it is first asked for, and then stays: a list needs none of it."""

    asked: AskedT
    folder: FolderT
    find_job: Callable[[], Job]

    @property
    def id(self) -> str:
        return self.folder.job_id

    @property
    def begun_at(self) -> float:
        """When it was asked for, in seconds since 1970."""
        return self.folder.begun_at

    @cached_property
    def results(self) -> Mapping[int, CellResult]:
        return self.folder.results()

    @cached_property
    def job(self) -> Job:
        return self.find_job()

    @property
    def is_running(self) -> bool:
        return not self.job.is_over


StandingT = TypeVar("StandingT", bound=ResultStanding[Any, Any])


@dataclass(frozen=True, kw_only=True)
class Sort(Generic[AskedT, FolderT, StandingT]):
    """One sort of such things: the `kind` of its jobs, what a person calls it and `where` one is started, and what
    stands for it."""

    kind: str
    title: str
    where: str
    asked: type[AskedT]
    folder: Callable[[Path], FolderT]
    standing: type[StandingT]


class ResultService(Generic[AskedT, FolderT, StandingT]):
    """Puts what is asked in line and finds it again, each in a folder of its own under `root`."""

    def __init__(self, sort: Sort[AskedT, FolderT, StandingT], runner: JobRunner, root: Path) -> None:
        self._sort = sort
        self._runner = runner
        self._root = root
        self._jobs = Recent[Job]()

    def standing(self, job_id: str, visitor: str | None = None) -> StandingT:
        """How that of this id stands now.

        Raises:
            NotFound: there is none, or it is not that of `visitor`.
        """
        sort, row = self._sort, self._runner.row(job_id)
        if row.kind != sort.kind or (visitor is not None and row.visitor != visitor):
            raise NotFound(f"There is no such {sort.title}.", f"Start one under {sort.where}.")
        # One that is over is told from the ledger once: of thousands of pictures that takes a second.
        find_job = partial(self._jobs.get, row.id, row.is_over or object(), lambda: self._runner.job(row.id))
        return self._stands(sort.asked.model_validate(dict(row.payload)), row.id, find_job)

    def of(self, visitor: str | None = None) -> list[StandingT]:
        """Those of `visitor`, or all, newest first."""
        found: list[StandingT] = []
        for path in sorted(self._root.glob("*"), reverse=True):
            try:
                found.append(self.standing(path.name, visitor))
            except NotFound:
                continue
        return found

    def _begin(self, asked: AskedT, visitor: str, once: Once | None = None) -> StandingT:
        """Put it in line, or find what was `once` asked for. Raises QueueFull."""
        job = self._runner.submit(self._sort.kind, asked.model_dump(mode="json"), visitor, once)
        if once:  # of what was asked for before, it is what was decided then
            asked = self._sort.asked.model_validate(dict(job.payload))
        standing = self._stands(asked, job.id, lambda: job)
        if not standing.folder.path.is_dir():  # else it may be written to
            standing.folder.begin(asked)
        return standing

    def _stands(self, asked: AskedT, job_id: str, find_job: Callable[[], Job]) -> StandingT:
        return self._sort.standing(asked=asked, folder=self._folder(job_id), find_job=find_job)

    def _folder(self, job_id: str) -> FolderT:
        return self._sort.folder(self._root / job_id)
