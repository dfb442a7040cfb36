"""What judges can and cannot see, as they were examined here, and in words for whoever reads their numbers."""

import html
import json
from dataclasses import asdict
from pathlib import Path

from studio.domain.scores import JudgeExam
from studio.evaluation_plots import scrolled
from studio.files import atomic_write
from studio.generation import EngineHolder
from studio.scoring import POCKET_JUDGE, ScoringService
from studio.statistics import share

_NAME = "exam.json"
LEAST = {"colour": 0.95, "shape": 0.95}
"""What a judge has to tell apart of a skill to be said to see it; of others `_LEAST`."""
_LEAST = 0.85
_BLIND = 0.6
"""Up to here, what it says is hardly more than chance (one half)."""


class JudgeExams:
    """Examines judges and keeps what came of it; ours comes with its exam."""

    def __init__(self, judges_dir: Path, scoring: ScoringService, engine: EngineHolder) -> None:
        self._kept = judges_dir / "exams"
        self._scoring = scoring
        self._engine = engine

    def known(self, name: str) -> JudgeExam | None:
        """What came of the last exam of the judge called `name`; None where it was never examined."""
        places = [self._kept / f"{name}.json", *([POCKET_JUDGE / _NAME] if name == POCKET_JUDGE.name else [])]
        return next((exam for place in places if (exam := _read(place)) is not None), None)

    def of(self, judge: str) -> JudgeExam | None:
        """That of the judge whose id a score carries: with other weights it is another judge."""
        exam = self.known(judge.partition(" ")[0]) if judge else None
        return exam if exam is not None and exam.judge == judge else None

    def examine(self, name: str) -> JudgeExam:
        """Examine the judge called `name` and keep what comes of it.

        Raises:
            NotFound, CorruptModel: there is no such judge, or it cannot be used.
            DownloadFailed: it is not here, and cannot be fetched.
            StorageFailed: it cannot be kept.
        """
        exam = self._engine.get().examine(self._scoring.ready(name))
        self._kept.mkdir(parents=True, exist_ok=True)
        atomic_write(self._kept / f"{name}.json", json.dumps(asdict(exam)).encode())
        return exam


def _read(path: Path) -> JudgeExam | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        skills = {str(skill): (int(right), int(of)) for skill, (right, of) in values.pop("skills").items()}
        right, of = values.pop("ladder")
        return JudgeExam(**values, skills=skills, ladder=(int(right), int(of)))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def exam_words(exam: JudgeExam) -> str:
    """What the judge sees and does not, in sentences."""
    rates = {skill: right / of for skill, (right, of) in exam.skills.items() if of}
    blind = [skill for skill, rate in rates.items() if rate <= _BLIND]
    unsure = [skill for skill, rate in rates.items() if skill not in blind and rate < LEAST.get(skill, _LEAST)]
    seen = [skill for skill in rates if skill not in blind and skill not in unsure]
    said = [f"On drawn scenes this judge sees {', '.join(seen)}."] if seen else ["It sees none of what was asked."]
    said += [f"It is unsure of {', '.join(unsure)}."] if unsure else []
    said += [f"It is blind to {', '.join(blind)}: there it guesses."] if blind else []
    return " ".join(said)


def exam_html(exam: JudgeExam | None) -> str:
    """The exam as a table (HTML), with the intervals; a sentence where there was none."""
    if exam is None:
        return '<p class="note quiet">This judge was not examined here yet.</p>'
    rows = [(skill.capitalize(), *tally) for skill, tally in exam.skills.items()]
    rows.append(("Captions with 0, 1, 2, 3 errors in order", *exam.ladder))
    lines = "".join(
        f'<tr><th scope="row">{html.escape(title)}</th><td>{share(right, of).words("{:.0%}".format)}</td>'
        f"<td>{right} of {of}</td></tr>"
        for title, right, of in rows
        if of
    )
    note = (
        f"{exam.judge}, on {exam.pictures} pictures. A picture's own caption against one that is wrong in that alone: "
        f"50 % is chance; in square brackets the 95 % interval. One threshold tells own captions from those of other "
        f"scenes with an AUROC of {exam.auroc:.3f}, from those with one error with {exam.auroc_foil:.3f} (0.5 is "
        f"chance); the rank correlation with the number of errors is {exam.rank:.2f}."
    )
    heads = "".join(f'<th scope="col">{title}</th>' for title in ("Told apart", "How often", "Pictures"))
    table = f'<table class="figures"><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>'
    said = f'<p class="note">{html.escape(exam_words(exam))}</p>'
    return f'{said}{scrolled(table, "Exam")}<p class="note quiet">{html.escape(note)}</p>'
