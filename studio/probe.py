"""Probes: which share of the pictures of one prompt shows each value of an attribute, and how sure that is."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from engines.pocket.checker import Sighting, see
from engines.pocket.world import ALL_SHAPES, BACKGROUNDS, COLOURS
from studio.cell_drawer import CellDrawer
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.cells import CellResult
from studio.domain.errors import CorruptModel, InvalidRequest, JobCancelled, NotFound
from studio.domain.probe import ATTRIBUTE_SETS, Answer, Attribute, Checked, Probe, ProbeRequest
from studio.domain.request import GenerationRequest
from studio.domain.scores import Score
from studio.domain.tags import without_tags
from studio.gallery import Gallery, opened
from studio.generation import GenerationService
from studio.job import Job
from studio.jobs import JobRunner
from studio.json_lines import append_line, read_lines, replace_lines
from studio.judge_remarks import judge_remark
from studio.probe_scores import ProbeResult, analyse
from studio.recent import Recent
from studio.result_folder import ResultFolder
from studio.scoring import ScoringService

KIND = "probe"
_PROBE, _ANSWERS = "probe.json", "answers.jsonl"
_SHARED = (set(ProbeRequest.model_fields) & set(GenerationRequest.model_fields)) - {"num_images"}
_WORDS: Mapping[Checked, Iterable[str]] = {"colour": COLOURS, "shape": ALL_SHAPES, "background": BACKGROUNDS}


class ProbeFolder(ResultFolder[Probe]):
    """`probes/<job>/`: what was asked, a line for each picture, and a line for each that was judged."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Probe, _PROBE)

    def answers(self) -> dict[int, Answer]:
        """What is known of the pictures so far, by their index; a line that was cut short is left out."""
        return {answer.index: answer for answer in read_lines(self.path / _ANSWERS, Answer)}

    def keep(self, answers: Iterable[Answer]) -> None:
        """Have the folder tell exactly these. Raises StorageFailed."""
        replace_lines(self.path / _ANSWERS, answers)

    def add(self, answer: Answer) -> None:
        """Write one more down. Raises StorageFailed."""
        append_line(self.path / _ANSWERS, answer)


@dataclass(frozen=True, kw_only=True)
class ProbeStanding:
    """A probe as it stands: what was asked, which pictures are drawn and which judged, by index. `job` draws it, or did
    so."""

    folder: ProbeFolder
    probe: Probe
    results: Mapping[int, CellResult]
    answers: Mapping[int, Answer]
    job: Job

    @property
    def id(self) -> str:
        return self.folder.job_id

    @property
    def begun_at(self) -> float:
        """When it was asked for, in seconds since 1970."""
        return self.folder.begun_at

    @property
    def is_running(self) -> bool:
        return not self.job.is_over

    @property
    def is_whole(self) -> bool:
        """Whether all that can be known is: every picture is drawn, and judged unless it failed."""
        drawn = [result for result in self.results.values() if result.image_id]
        return len(self.results) >= self.probe.num_images and len(self.answers) >= len(drawn)


class ProbeService:
    """Submits probes and works on them. What their owner has of a picture already is not drawn again, nor judged again
    by the same judge: to go on with one that was stopped is to ask once more."""

    def __init__(
        self,
        catalogue: Catalogue,
        runner: JobRunner,
        gallery: Gallery,
        generation: GenerationService,
        scoring: ScoringService,
        root: Path,
    ) -> None:
        self._catalogue = catalogue
        self._runner = runner
        self._gallery = gallery
        self._generation = generation
        self._scoring = scoring
        self._drawer = CellDrawer(catalogue, gallery, generation, scoring)
        self._root = root
        self._results = Recent[ProbeResult]()
        runner.register(KIND, self.run)

    def resolve(self, request: ProbeRequest) -> Probe:
        """What would be drawn and asked; see `submit`."""
        recipe = self._catalogue.resolve(GenerationRequest(**{name: getattr(request, name) for name in _SHARED}))
        checkpoint = self._catalogue.checkpoint(recipe.checkpoint)
        attributes = request.attributes or ATTRIBUTE_SETS["world" if checkpoint.is_pocket else "faces"]
        if checkpoint.is_pocket and attributes == ATTRIBUTE_SETS["faces"]:
            raise InvalidRequest(
                f"{checkpoint.title} draws coloured shapes, and no faces.",
                "Choose the attributes of the world, or another model.",
                "attributes",
            )
        judge = self._judge_name(request, checkpoint)
        text = without_tags(recipe.prompt)
        return Probe(
            recipe=recipe,
            attributes=tuple(_checked(each.filled(text), checkpoint) for each in attributes),
            num_images=request.num_images,
            judge=judge,
            margin=request.margin,
        )

    def submit(self, request: ProbeRequest, visitor: str = "local") -> ProbeStanding:
        """Decide what is open and put the probe in line.

        Raises:
            InvalidRequest: values that do not fit each other, their model or an adapter; no judge.
            QueueFull: too much is waiting.
        """
        return self.submit_resolved(self.resolve(request), visitor)

    def submit_resolved(self, probe: Probe, visitor: str = "local") -> ProbeStanding:
        """Put in line what is decided already, such as one that was stopped. Raises as `submit`."""
        self._generation.check(probe.recipe)
        job = self._runner.submit(KIND, probe.model_dump(mode="json"), visitor)
        folder = ProbeFolder(self._root / job.id)
        folder.begin(probe)
        return self._standing(folder, probe, job)

    def standing(self, probe_id: str, visitor: str | None = None) -> ProbeStanding:
        """A probe as it stands now.

        Raises:
            NotFound: there is none of that id, or it is not that of `visitor`.
        """
        job = self._runner.job(probe_id)
        if job.kind != KIND or (visitor is not None and job.visitor != visitor):
            raise NotFound("There is no such probe.", "Start one under Evaluate, Balance.")
        return self._standing(ProbeFolder(self._root / job.id), Probe.model_validate(dict(job.payload)), job)

    def of(self, visitor: str | None = None) -> list[ProbeStanding]:
        """Those of `visitor`, or all, newest first."""
        found: list[ProbeStanding] = []
        for path in sorted(self._root.glob(f"*/{_PROBE}"), reverse=True):
            try:
                found.append(self.standing(path.parent.name, visitor))
            except NotFound:
                continue
        return found

    def pictures(self, standing: ProbeStanding) -> dict[int, Path]:
        """The files of what is drawn, by index; without what was deleted since."""
        records = self._gallery.of_job(standing.id)
        return {record.image_index: self._gallery.path(record) for record in records}

    def result(self, standing: ProbeStanding) -> ProbeResult:
        """What it says so far. A page asks every other second."""
        size = len(standing.results), len(standing.answers)
        probe, results, answers = standing.probe, standing.results, standing.answers
        size = len(results), len(answers)
        return self._results.get(standing.id, size, lambda: analyse(probe, results, answers, self._remark(probe)))

    def run(self, job: Job) -> dict[str, Any]:
        """Draw every picture of `job` that no line tells of yet, then ask the judge of each; the job handler."""
        probe = Probe.model_validate(dict(job.payload))
        folder = ProbeFolder(self._root / job.id)
        folder.begin(probe)
        judge = self._scoring.folder_of(probe.judge)
        judge_id = self._tried(judge, probe)
        seconds = self._drawer.draw(job, probe.cells, folder, None)
        results = folder.results().values()
        known = self._known(job, probe, judge_id)
        made = {each.index: each.image_id for each in results if each.image_id}
        there = {index: known[image_id] for index, image_id in made.items() if image_id in known}
        folder.keep(answer.model_copy(update={"index": index}) for index, answer in there.items())
        for index in sorted(made.keys() - there.keys()):
            if job.cancelled():
                raise JobCancelled
            if answer := self._asked(probe, judge, index, made[index]):
                folder.add(answer)
        return {"num_images": probe.num_images, "seconds": round(seconds, 2)}

    def _tried(self, judge: Path, probe: Probe) -> str:
        """The id of the judge, asked of an empty picture before hours go into pictures that it cannot judge.

        Raises:
            CorruptModel: it cannot be used.
        """
        with tempfile.TemporaryDirectory() as folder:
            blank = Path(folder) / "blank.png"
            Image.new("RGB", (64, 64), "gray").save(blank)
            score = self._scoring.score_file(judge, blank, probe.attributes[0].values[0].text)
        if score is None:
            raise _unusable(judge)
        return score.judge

    def _known(self, job: Job, probe: Probe, judge_id: str) -> dict[str, Answer]:
        """What this judge has said already of pictures of the owner of `job`, asked the same; by the picture's id."""
        return {
            answer.image_id: answer
            for standing in self.of(job.visitor)
            if standing.probe.attributes == probe.attributes
            for answer in standing.answers.values()
            if answer.judge == judge_id
        }

    def _asked(self, probe: Probe, judge: Path, index: int, image_id: str) -> Answer | None:
        """Ask for every value of every attribute; None of a picture that was deleted meanwhile.

        Raises:
            CorruptModel: the judge cannot be used.
        """
        try:
            picture = self._gallery.path(self._gallery.image(image_id))
            pixels = opened(picture)
        except (NotFound, OSError):
            return None
        cosines: dict[str, tuple[float, ...]] = {}
        scores: list[Score] = []
        for attribute in probe.attributes:
            told = [self._scoring.score_file(judge, picture, value.text) for value in attribute.values]
            known = [score for score in told if score is not None]
            if len(known) < len(told):
                raise _unusable(judge)
            cosines[attribute.name] = tuple(round(score.cosine, 6) for score in known)
            scores += known
        looked_for = [each for each in probe.attributes if each.checked and self._is_pocket(probe)]
        sighting = see(pixels) if looked_for else None
        return Answer(
            index=index,
            image_id=image_id,
            judge=scores[0].judge,
            cosines=cosines,
            seen={each.name: _seen(sighting, each.checked) for each in looked_for if sighting and each.checked},
            is_truncated=any(score.is_truncated for score in scores),
        )

    def _is_pocket(self, probe: Probe) -> bool:
        return self._catalogue.checkpoint(probe.recipe.checkpoint).is_pocket

    def _remark(self, probe: Probe) -> str:
        """What makes the judge doubtful, in a sentence; "" where nothing is known to."""
        return judge_remark(self._scoring, probe.judge, [probe.recipe.checkpoint], self._catalogue)

    def _judge_name(self, request: ProbeRequest, checkpoint: Checkpoint) -> str:
        """Raises InvalidRequest where there is no judge, or not the one that is asked for."""
        if request.judge:
            return self._scoring.asked_for(request.judge).name
        judge = self._scoring.judge_of(checkpoint)
        if judge is None:
            raise InvalidRequest(
                f"There is no judge for pictures of {checkpoint.title}.",
                "Put a folder of open_clip's into the judges folder; the README tells how.",
                "judge",
            )
        return judge.name

    def _standing(self, folder: ProbeFolder, probe: Probe, job: Job) -> ProbeStanding:
        answers = {index: answer for index, answer in folder.answers().items() if answer.fits(probe)}
        return ProbeStanding(folder=folder, probe=probe, results=folder.results(), answers=answers, job=job)


def _seen(sighting: Sighting, checked: Checked) -> str | None:
    """What the checker calls it: of the largest thing, or the background."""
    if checked == "background":
        return sighting.background
    largest = sighting.objects[0] if sighting.objects else None
    return getattr(largest, checked, None)


def _checked(attribute: Attribute, checkpoint: Checkpoint) -> Attribute:
    """The attribute, if it can be asked.

    Raises:
        InvalidRequest: two values have the same text, or the checker does not know a value that it is to name.
    """
    texts = [value.text for value in attribute.values]
    if len(set(texts)) < len(texts):
        raise InvalidRequest(
            f"Two values of {attribute.name!r} have the same text.", "Nothing could tell them apart.", "attributes"
        )
    known = list(_WORDS[attribute.checked]) if attribute.checked and checkpoint.is_pocket else None
    strange = [value.name for value in attribute.values if known is not None and value.name not in known]
    if known is not None and strange:
        raise InvalidRequest(
            f"The checker knows no {attribute.checked} {strange[0]!r}.", f"It knows {', '.join(known)}.", "attributes"
        )
    return attribute


def _unusable(judge: Path) -> CorruptModel:
    return CorruptModel(
        f"The judge {judge.name} cannot be used.", "The log says why; choose another, or fetch it anew."
    )
