"""CLIP scores: which judge looks at whose pictures, and what it said."""

import logging
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engines.base import OnFetch, never, unheard
from studio.domain.catalogue import Checkpoint
from studio.domain.errors import InvalidRequest, NotFound, StudioError
from studio.domain.images import ImageRecord
from studio.domain.prompt_syntax import plain_words
from studio.domain.scores import Score, is_judge
from studio.gallery import Gallery
from studio.generation import EngineHolder
from studio.ledger import Ledger
from studio.offered_judges import OfferedJudge, OfferedJudges
from studio.settings import PROJECT_ROOT

logger = logging.getLogger(__name__)

POCKET_JUDGE = PROJECT_ROOT / "engines" / "pocket" / "weights" / "pocket-clip"
"""Knows the pocket world, and nothing else."""


class ScoringService:
    """Has pictures judged, each once by each judge. A judge that cannot be used stops nothing: `problem` tells why."""

    def __init__(self, offered: OfferedJudges, ledger: Ledger, gallery: Gallery, engine: EngineHolder) -> None:
        self._offered = offered
        self._ledger = ledger
        self._gallery = gallery
        self._engine = engine
        self._problems: dict[Path, str] = {}

    def judge_of(self, checkpoint: Checkpoint) -> Path | None:
        """The folder of the judge of a checkpoint's pictures: ours for pocket models, for others the first by name that
        their owner has put into the judges folder; None without one."""
        if checkpoint.is_pocket:
            return POCKET_JUDGE
        found = self._folders()
        return found[0] if found else None

    def judges(self) -> tuple[str, ...]:
        """The names of the judges that there are, ours first, and last such as are fetched when they are asked for."""
        owners = [folder.name for folder in self._folders() if folder.name != POCKET_JUDGE.name]
        return (POCKET_JUDGE.name, *owners, *(row.name for row in self._offered.missing()))

    def missing(self) -> tuple[OfferedJudge, ...]:
        """Those of them that have to be fetched first."""
        return self._offered.missing()

    def default_for(self, checkpoint: Checkpoint) -> str:
        """The name of the judge that compares a checkpoint's pictures: as `judge_of`, or the first that can be fetched;
        "" where there is none."""
        judge = self.judge_of(checkpoint)
        return judge.name if judge else next((row.name for row in self._offered.missing()), "")

    def ready(self, name: str, cancelled: Callable[[], bool] = never, on_fetch: OnFetch = unheard) -> Path:
        """The folder of the judge called `name`, fetched where it is not here, and loaded: what it cannot do is known
        before hours go into pictures.

        Raises:
            NotFound, CorruptModel: there is no such judge, or it cannot be used.
            DownloadFailed, StorageFailed: it cannot be had.
            JobCancelled: within a second of `cancelled()` turning true, while it is fetched.
        """
        self._offered.fetch(name, cancelled, on_fetch)
        folder = self.folder_of(name)
        self._engine.get().preload_judge(folder)
        return folder

    def _folders(self) -> list[Path]:
        """Those that their owner has put there, by name."""
        return sorted(folder for folder in self._offered.folder.glob("*") if is_judge(folder))

    def folder_of(self, name: str) -> Path:
        """The folder of the judge called `name`; raises NotFound where there is none."""
        if name not in self.judges():
            raise NotFound(f"There is no judge called {name!r}.", f"There are: {', '.join(self.judges())}.")
        return POCKET_JUDGE if name == POCKET_JUDGE.name else self._offered.folder / name

    def asked_for(self, name: str) -> Path:
        """The folder of the judge that a person asks for; raises InvalidRequest where there is none."""
        try:
            return self.folder_of(name)
        except NotFound as error:
            raise InvalidRequest(error.message, error.hint, "judge") from None

    def problem(self, checkpoint: Checkpoint) -> str:
        """Why the judge of a checkpoint's pictures cannot be used; "" as far as is known it can."""
        judge = self.judge_of(checkpoint)
        return self._problems.get(judge, "") if judge else ""

    def prepare(self, checkpoint: Checkpoint) -> None:
        """Load the judge of a checkpoint's pictures, which takes seconds the first time, before they are waited for."""
        judge = self.judge_of(checkpoint)
        if judge is not None:
            with self._noting(judge):
                self._engine.get().preload_judge(judge)

    def score(self, record: ImageRecord, checkpoint: Checkpoint) -> Score | None:
        """Have a picture judged by its prompt, without tags and weights; None where there is no judge."""
        return self.score_by(self.judge_of(checkpoint), record, plain_words(record.recipe.prompt))

    def score_by(self, judge: Path | None, record: ImageRecord, text: str) -> Score | None:
        """Have a picture judged by the judge in a folder, and by `text`; None where there is no judge, or it cannot be
        used."""
        score = None if judge is None else self.score_file(judge, self._gallery.path(record), text)
        if score is not None:
            self._ledger.keep_score(record.id, score)
        return score

    def score_file(self, judge: Path, picture: Path, text: str) -> Score | None:
        """Have the picture in a file judged, and keep nothing of it; None where the judge cannot be used."""
        score = None
        with self._noting(judge):
            score = self._engine.get().score(judge, picture, text)
        return score

    def score_texts(self, judge: Path, picture: Path, texts: Sequence[str]) -> tuple[Score, ...] | None:
        """Have the picture in a file judged by each of `texts`, in their order, and keep nothing of it; None where the
        judge cannot be used or the picture is gone."""
        scores = None
        with self._noting(judge):
            scores = self._engine.get().score_texts(judge, picture, texts)
        return scores

    def embed_file(self, judge: Path, picture: Path) -> tuple[float, ...] | None:
        """What a judge makes of the picture in a file, a vector of length 1; None where the judge cannot be used or the
        picture is gone."""
        vector = None
        with self._noting(judge):
            vector = self._engine.get().embed(judge, picture)
        return vector

    def scores(self, job_id: str) -> dict[str, Score]:
        """What one judge said of the pictures that a job made, by the id of the picture: that which judged most, since
        numbers of different judges cannot be compared."""
        told = self._ledger.scores(job_id)
        judges = Counter(score.judge for scores in told.values() for score in scores)
        if not judges:
            return {}
        chosen = judges.most_common(1)[0][0]
        return {image_id: score for image_id, scores in told.items() for score in scores if score.judge == chosen}

    @contextmanager
    def _noting(self, judge: Path) -> Generator[None]:
        """Keep why `judge` could not be used, or that it could."""
        try:
            yield
        except StudioError as error:
            if self._problems.get(judge) != str(error):
                logger.warning("pictures are not judged: %s", error)
            self._problems[judge] = str(error)
        else:
            self._problems.pop(judge, None)
