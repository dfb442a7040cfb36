"""What is measured of an evaluation once all is drawn: the anchors, what a second judge says, how alike pictures
are."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from engines.pocket.grammar import parse
from engines.pocket.world import render
from studio.diversity import Vector, near_threshold, nearest, prompt_diversities
from studio.domain.cells import Opinion
from studio.domain.errors import DatasetError, JobCancelled
from studio.domain.evaluation import Evaluation, EvaluationCell, System
from studio.domain.images import ImageRecord
from studio.domain.prompt_syntax import plain_words
from studio.evaluation_files import Anchors, EvaluationFolder, Likeness, Nearness
from studio.gallery import Gallery
from studio.job import Job
from studio.run_adapters import training_folder
from studio.run_grid_embeddings import is_caption, training_pictures
from studio.scoring import ScoringService

_ORACLE_PX = 128
_DIGITS = 6
"""Of a cosine: more than float32 can tell."""

Vectors = Mapping[int, Vector]
"""What a judge makes of pictures, by the index of their cell."""


class EvaluationJudging:
    """Goes once more over the pictures of an evaluation. Whoever stops it is heard between two of them."""

    def __init__(self, gallery: Gallery, scoring: ScoringService, runs_dir: Path) -> None:
        self._gallery = gallery
        self._scoring = scoring
        self._runs_dir = runs_dir

    def finish(self, job: Job, evaluation: Evaluation, folder: EvaluationFolder) -> None:
        """Measure all of it, and keep it in `folder`.

        Raises:
            JobCancelled: somebody stopped it.
            StorageFailed: it cannot be kept.
        """
        if evaluation.judge:
            judge = self._scoring.folder_of(evaluation.judge)
            folder.keep_anchors(self._anchors(job, evaluation, folder, judge))
            folder.keep_likeness(self._likeness(job, evaluation, judge))
        if evaluation.second_judge:
            self._ask_second(job, evaluation, folder, self._scoring.folder_of(evaluation.second_judge))

    def _ask_second(self, job: Job, evaluation: Evaluation, folder: EvaluationFolder, judge: Path) -> None:
        """After all is drawn, for two large judges need not be in memory at once."""
        results = folder.results()
        for cell, record in self._drawn(job, evaluation):
            told = results.get(cell.index)
            if told is None or told.second is not None:
                continue
            if score := self._scoring.score_by(judge, record, cell.text):
                opinion = Opinion(
                    cosine=round(score.cosine, _DIGITS), judge=score.judge, is_truncated=score.is_truncated
                )
                folder.note(told.model_copy(update={"second": opinion}))

    def _anchors(self, job: Job, evaluation: Evaluation, folder: EvaluationFolder, judge: Path) -> Anchors:
        """See `Anchors`; the floor is of the baseline's first picture of each prompt, judged by the next one."""
        texts = [plain_words(prompt.text) for prompt in evaluation.prompts]
        floor: dict[int, float] = {}
        for cell, record in self._drawn(job, evaluation, lambda cell: cell.image == 0):
            if cell.system.name == evaluation.baseline and len(texts) > 1:
                other = texts[(cell.place + 1) % len(texts)]
                floor |= self._scored(cell.place, judge, self._gallery.path(record), other)
        return Anchors(floor=floor, ceiling=self._ceiling(job, texts, judge))

    def _ceiling(self, job: Job, texts: Sequence[str], judge: Path) -> dict[int, float]:
        ceiling: dict[int, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            drawing = Path(folder) / "exact.png"
            for place, text in enumerate(texts):
                scene = parse(text)
                if scene is None:
                    continue
                _go_on(job)
                render(scene, place, _ORACLE_PX).save(drawing)
                ceiling |= self._scored(place, judge, drawing, text)
        return ceiling

    def _scored(self, place: int, judge: Path, picture: Path, text: str) -> dict[int, float]:
        score = self._scoring.score_file(judge, picture, text)
        return {place: round(score.cosine, _DIGITS)} if score else {}

    def _likeness(self, job: Job, evaluation: Evaluation, judge: Path) -> Likeness:
        vectors: dict[int, Vector] = {}
        for cell, record in self._drawn(job, evaluation):
            vector = self._scoring.embed_file(judge, self._gallery.path(record))
            if vector is not None:
                vectors[cell.index] = vector
        learnt = partial(self._nearness, job, evaluation, judge, vectors)
        near = {system.name: told for system in evaluation.systems if system.adapters and (told := learnt(system))}
        return Likeness(
            judge=judge.name,
            varied=_varied(evaluation, vectors),
            to_baseline=_to_baseline(evaluation, vectors),
            near=near,
        )

    def _nearness(
        self, job: Job, evaluation: Evaluation, judge: Path, vectors: Vectors, system: System
    ) -> Nearness | None:
        """None where nobody knows what the adapters of `system` learnt, or it is too little."""
        training: dict[str, Vector] = {}
        captions: set[str] = set()
        for use in system.adapters:
            for picture in self._learnt(use.adapter, captions):
                _go_on(job)
                vector = self._scoring.embed_file(judge, picture)
                if vector is not None:
                    training[f"{use.adapter}/{picture.name}"] = vector
        threshold = near_threshold(training)
        if threshold is None:
            return None
        told = _nearest(evaluation, vectors, training, captions, system)
        control = control_of(evaluation, system)
        without = _nearest(evaluation, vectors, training, captions, control) if control else {}
        return Nearness(
            threshold=round(threshold, _DIGITS),
            cosines={index: cosine for index, (cosine, _) in told.items()},
            names={index: name for index, (_, name) in told.items()},
            control={index: cosine for index, (cosine, _) in without.items()},
        )

    def _learnt(self, adapter_id: str, captions: set[str]) -> list[Path]:
        """The pictures that an adapter learnt from, as far as they are here; what they are called comes to
        `captions`."""
        folder = training_folder(self._runs_dir, adapter_id)
        try:
            pictures, told = training_pictures(folder) if folder else ([], frozenset[str]())
        except DatasetError:  # deleted since
            return []
        captions |= told
        return pictures

    def _drawn(
        self, job: Job, evaluation: Evaluation, wanted: Callable[[EvaluationCell], bool] = lambda _: True
    ) -> Iterator[tuple[EvaluationCell, ImageRecord]]:
        """The cells that there is a picture of. Raises JobCancelled."""
        made = {record.image_index: record for record in self._gallery.of_job(job.id)}
        for cell in evaluation.cells:
            if cell.index in made and wanted(cell):
                _go_on(job)
                yield cell, made[cell.index]


def _go_on(job: Job) -> None:
    if job.cancelled():
        raise JobCancelled


def control_of(evaluation: Evaluation, system: System) -> System | None:
    """The system that is the same but for adapters; None where there is none."""
    return next((each for each in evaluation.systems if not each.adapters and each.recipe == system.recipe), None)


def _varied(evaluation: Evaluation, vectors: Vectors) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for system in evaluation.systems:
        of_system = {
            (str(cell.place), cell.image): vectors[cell.index]
            for cell in evaluation.cells
            if cell.system.name == system.name and cell.index in vectors
        }
        told = prompt_diversities(of_system)
        if told:
            found[system.name] = {int(place): round(value, _DIGITS) for place, value in told.items()}
    return found


def _to_baseline(evaluation: Evaluation, vectors: Vectors) -> dict[int, float]:
    base = {
        (cell.place, cell.image): vectors[cell.index]
        for cell in evaluation.cells
        if cell.system.name == evaluation.baseline and cell.index in vectors
    }
    return {
        cell.index: round(float(np.dot(vectors[cell.index], base[drawn])), _DIGITS)
        for cell in evaluation.cells
        if cell.system.name != evaluation.baseline
        and cell.index in vectors
        and (drawn := (cell.place, cell.image)) in base
    }


def _nearest(
    evaluation: Evaluation, vectors: Vectors, training: Mapping[str, Vector], captions: set[str], system: System
) -> dict[int, tuple[float, str]]:
    """By the index of the cell, of a system's pictures whose prompt is no caption."""
    seen = {
        ("", cell.index): vectors[cell.index]
        for cell in evaluation.cells
        if cell.system.name == system.name and cell.index in vectors and not is_caption(cell.text, captions)
    }
    return {index: (round(each.cosine, _DIGITS), each.name) for (_, index), each in nearest(seen, training).items()}
