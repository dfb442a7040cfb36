"""Probes: which share of the pictures of one prompt shows each value of an attribute, and how sure that is."""

import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from engines.pocket.checker import Sighting, see
from engines.pocket.world import ALL_SHAPES, BACKGROUNDS, COLOURS
from studio.cell_drawer import CellDrawer
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.cells import CellResult
from studio.domain.errors import CorruptModel, InvalidRequest, JobCancelled, NotFound
from studio.domain.probe import ATTRIBUTE_SETS, Answer, Attribute, Checked, Probe, ProbeRequest
from studio.domain.prompt_syntax import plain_words
from studio.domain.request import GenerationRequest
from studio.gallery import Gallery, opened
from studio.generation import GenerationService
from studio.job import Job
from studio.jobs import JobRunner
from studio.json_lines import append_line, read_lines, replace_lines
from studio.judge_remarks import judge_remark
from studio.pace import usual_s
from studio.probe_scores import ProbeResult, analyse
from studio.recent import Recent
from studio.result_folder import ResultFolder
from studio.result_service import ResultService, ResultStanding, Sort
from studio.scoring import ScoringService
from studio.step_reporter import StepReporter

KIND = "probe"
_PROBE, _ANSWERS = "probe.json", "answers.jsonl"
_SHARED = (set(ProbeRequest.model_fields) & set(GenerationRequest.model_fields)) - {"num_images"}
_RECENT = 8
"""Probes by which it is told how long judging takes."""
_WORDS: Mapping[Checked, Iterable[str]] = {"colour": COLOURS, "shape": ALL_SHAPES, "background": BACKGROUNDS}


class ProbeFolder(ResultFolder[Probe]):
    """`probes/<job>/`: what was asked, a line for each picture, and a line for each that was judged."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Probe, _PROBE)

    def answers(self) -> dict[int, Answer]:
        """What is known of the pictures so far, by their index; a line that was cut short is left out."""
        return {answer.index: answer for answer in read_lines(self.path / _ANSWERS, Answer)}

    @property
    def size(self) -> int:
        """How many bytes tell what is known of the pictures; 0 where nothing does."""
        try:
            return (self.path / _ANSWERS).stat().st_size
        except OSError:
            return 0

    def keep(self, answers: Iterable[Answer]) -> None:
        """Have the folder tell exactly these. Raises StorageFailed."""
        replace_lines(self.path / _ANSWERS, answers)

    def add(self, answer: Answer) -> None:
        """Write one more down. Raises StorageFailed."""
        append_line(self.path / _ANSWERS, answer)


@dataclass(frozen=True, kw_only=True)
class ProbeStanding(ResultStanding[Probe, ProbeFolder]):
    """A probe as it stands: which pictures are drawn and which judged, by index."""

    @property
    def probe(self) -> Probe:
        """What was asked."""
        return self.asked

    @cached_property
    def answers(self) -> Mapping[int, Answer]:
        return {index: answer for index, answer in self.folder.answers().items() if answer.fits(self.probe)}

    @cached_property
    def results(self) -> Mapping[int, CellResult]:
        _ = self.answers  # first, since each is written after its picture's line: never are more judged than drawn
        return self.folder.results()

    @property
    def status(self) -> str:
        """`running` (or still waiting), or how it ended: `finished`, `failed`, `cancelled`."""
        return "running" if self.is_running else type(self.job.wait()).__name__.lower()

    @property
    def is_whole(self) -> bool:
        """Whether all that can be known is: every picture is drawn, and judged unless it failed."""
        drawn = [result for result in self.results.values() if result.image_id]
        return len(self.results) >= self.probe.num_images and len(self.answers) >= len(drawn)


class ProbeService(ResultService[Probe, ProbeFolder, ProbeStanding]):
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
        sort = Sort(
            kind=KIND, title="probe", where="Evaluate, Balance", asked=Probe, folder=ProbeFolder, standing=ProbeStanding
        )
        super().__init__(sort, runner, root)
        self._gallery = gallery
        self._generation = generation
        self._scoring = scoring
        self._drawer = CellDrawer(catalogue, gallery, generation, scoring)
        self._results = Recent[ProbeResult]()
        self._judging = Recent[float]()
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
        text = plain_words(recipe.prompt)
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
        return self._begin(probe, visitor)

    def pictures(self, standing: ProbeStanding) -> dict[int, Path]:
        """The files of what is drawn, by index; without what was deleted since."""
        records = self._gallery.of_job(standing.id)
        return {record.image_index: self._gallery.path(record) for record in records}

    def result(self, standing: ProbeStanding) -> ProbeResult:
        """What it says so far. A page asks every other second."""
        probe, answers, results = standing.probe, standing.answers, standing.results
        size = len(results), len(answers)
        return self._results.get(standing.id, size, lambda: analyse(probe, results, answers, self._remark(probe)))

    def remaining_s(self, probe: Probe) -> float | None:
        """How long drawing and judging will take, by how long pictures like these took here; None where the model has
        drawn nothing here yet."""
        drawing = usual_s(self._gallery, probe.recipe)
        return None if drawing is None else (drawing + self._usual_judging_s(probe)) * probe.num_images

    def _usual_judging_s(self, probe: Probe) -> float:
        """How long this judge took for a picture of the newest probe that it judged; 0 where there is none."""
        for path in sorted(self._root.glob(f"*/{_ANSWERS}"), reverse=True)[:_RECENT]:
            folder = ProbeFolder(path.parent)
            took = self._judging.get(folder.job_id, folder.size, partial(_judging_s, folder, probe.judge))
            if took:
                return took
        return 0.0

    def run(self, job: Job) -> dict[str, Any]:
        """Draw every picture of `job` that no line tells of yet, and ask the judge of each as soon as it is there; the
        job handler."""
        begun = time.monotonic()
        probe = Probe.model_validate(dict(job.payload))
        folder = self._folder(job.id)
        folder.begin(probe)
        judge = self._scoring.ready(probe.judge, job.cancelled, StepReporter(job).fetching)
        known = self._known(job, probe, self._tried(judge, probe))

        def ask(index: int, image_id: str) -> None:
            earlier = known.get(image_id)
            answer = earlier.at(index) if earlier else self._asked(probe, judge, index, image_id)
            if answer is not None:
                folder.add(answer)

        made = {each.index: each.image_id for each in folder.results().values() if each.image_id}
        folder.keep(known[image_id].at(index) for index, image_id in made.items() if image_id in known)
        for index in sorted(index for index, image_id in made.items() if image_id not in known):
            if job.cancelled():
                raise JobCancelled
            ask(index, made[index])
        self._drawer.draw(job, probe.cells, folder, None, lambda cell, record: ask(cell.index, record.id))
        return {"num_images": probe.num_images, "seconds": round(time.monotonic() - begun, 2)}

    def _tried(self, judge: Path, probe: Probe) -> str:
        """The id of the judge, asked of an empty picture before hours go into pictures that it cannot judge.

        Raises:
            CorruptModel: it cannot be used.
        """
        with tempfile.TemporaryDirectory() as folder:
            blank = Path(folder) / "blank.png"
            Image.new("RGB", (64, 64), "gray").save(blank)
            scores = self._scoring.score_texts(judge, blank, probe.texts)
        if not scores:
            raise _unusable(judge)
        return scores[0].judge

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
        begun = time.monotonic()
        scores = self._scoring.score_texts(judge, picture, probe.texts)
        if not scores:
            if not picture.exists():
                return None
            raise _unusable(judge)
        told = iter(scores)
        cosines = {
            each.name: tuple(round(score.cosine, 6) for score in islice(told, len(each.values)))
            for each in probe.attributes
        }
        looked_for = [each for each in probe.attributes if each.checked and self._is_pocket(probe)]
        sighting = see(pixels) if looked_for else None
        return Answer(
            index=index,
            image_id=image_id,
            judge=scores[0].judge,
            cosines=cosines,
            seen={each.name: _seen(sighting, each.checked) for each in looked_for if sighting and each.checked},
            is_truncated=any(score.is_truncated for score in scores),
            seconds=round(time.monotonic() - begun, 4),
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
        judge = self._scoring.default_for(checkpoint)
        if not judge:
            raise InvalidRequest(
                f"There is no judge for pictures of {checkpoint.title}.",
                "Put a folder of open_clip's into the judges folder; the README tells how.",
                "judge",
            )
        return judge


def _judging_s(folder: ProbeFolder, judge: str) -> float:
    """How long a picture of the probe in a folder took to be judged; 0 where `judge` did not."""
    took = [each.seconds for each in folder.answers().values() if each.seconds and each.judge.startswith(f"{judge} ")]
    return median(took) if took else 0.0


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
