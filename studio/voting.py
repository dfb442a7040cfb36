"""Blind votes between pictures of an evaluation: which two come next, what was said of them, what that comes to.

Votes lie beside the evaluation's results, in `votes.jsonl`, a line each. Nobody learns there who voted: of a visitor
only a short hash is kept.
"""

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.evaluation import Evaluation
from studio.domain.votes import OUTCOMES, VoteLine, VoteOutcome, VotePair
from studio.evaluation import EvaluationService, Standing
from studio.gallery import Gallery
from studio.json_lines import append_line, read_lines, replace_lines
from studio.vote_summary import VoteSummary, summarise

_VOTES = "votes.jsonl"
_ANSWERS: Mapping[str, VoteOutcome] = {each: each for each in OUTCOMES}
_MOST_OFFERS = 4096
"""Pairs whose token is remembered, of all raters together; older ones can no longer be voted on."""

_Places = set[tuple[int, int]]
"""Prompts by their place, each with the number of a picture of it."""
_Free = dict[frozenset[str], _Places]
"""What can be shown, by the two systems."""


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """What a rater sees next: `pair`, None where nothing is `left`; `cast` counts what they voted on or skipped."""

    pair: VotePair | None
    left: int
    cast: int


@dataclass(frozen=True, kw_only=True)
class _Offer:
    evaluation_id: str
    rater: str
    pair: VotePair


class VoteFile:
    """The votes on one evaluation."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[VoteLine]:
        """In the order of voting; what cannot be read is left out, such as a line that was cut short."""
        return read_lines(self._path, VoteLine)

    def append(self, line: VoteLine) -> None:
        """Write one more line, on a new one even if the last was cut short.

        Raises:
            StorageFailed: it cannot be written, or the evaluation was deleted.
        """
        append_line(self._path, line, is_synced=True)

    def replace(self, lines: Sequence[VoteLine]) -> None:
        """Raises StorageFailed as `append` does; the old votes are intact then."""
        replace_lines(self._path, lines)


class VotingService:
    """Shows pairs of pictures and takes votes on them. A rater is named by the id of a visitor."""

    def __init__(self, evaluations: EvaluationService, gallery: Gallery, rng: random.Random | None = None) -> None:
        self._evaluations = evaluations
        self._gallery = gallery
        self._rng = rng or random.SystemRandom()
        self._offers: dict[str, _Offer] = {}
        self._lock = threading.Lock()

    def ballot(self, standing: Standing, rater: str) -> Ballot:
        """The pair to vote on now, and how many there are for this rater. It stays the same until it is voted on or
        skipped: a reload brings no other one."""
        rater = rater_id(rater)
        with self._lock:
            lines = self.lines(standing)
            free = self._free(standing, lines, rater)
            pair = self._open(standing, rater, free)
            if pair is None:
                pair = self._drawn(standing, free, _shown(lines, rater))
                if pair is not None:
                    self._offer(standing, rater, pair)
        left = sum(len(places) for places in free.values())
        return Ballot(pair=pair, left=left, cast=sum(line.rater == rater for line in lines))

    def next_pair(self, standing: Standing, rater: str) -> VotePair | None:
        """Two pictures by the two systems that were voted on least, of a random prompt, on random sides; None where
        this rater has voted on or skipped all that is drawn. See `ballot`."""
        return self.ballot(standing, rater).pair

    def files(self, standing: Standing, pair: VotePair) -> tuple[Path, Path]:
        """The files of both pictures, in the order in which they are shown; raises NotFound where one was deleted."""
        first, second = (
            self._gallery.path(self._gallery.image(standing.results[index].image_id))
            for index in (pair.first_index, pair.second_index)
        )
        if not (first.is_file() and second.is_file()):
            raise NotFound("One of the two pictures was deleted.", "Vote on two others.")
        return first, second

    def vote(self, standing: Standing, token: str, outcome: str, rater: str) -> VoteLine:
        """Keep what a rater says of the pair that `token` names.

        Raises:
            InvalidRequest: no such outcome; a pair that was not shown to this rater, or on which they voted already.
            StorageFailed: it cannot be written.
        """
        rater = rater_id(rater)
        said = _ANSWERS.get(outcome)
        if said is None:
            raise InvalidRequest(f"{outcome!r} is no answer.", f"Give one of: {', '.join(OUTCOMES)}.", "outcome")
        with self._lock:
            offer = self._offers.get(token)
            if offer is None or (offer.evaluation_id, offer.rater) != (standing.id, rater):
                raise InvalidRequest("These two pictures are not open for your vote.", "Vote on two others.", "token")
            pair = offer.pair
            voted = _voted(self.lines(standing), rater)
            if (pair.place, pair.image) in voted.get(pair.systems, ()):
                hint = "Take your vote back to change it."
                raise InvalidRequest("You have voted on these two pictures already.", hint, "token")
            line = VoteLine(
                place=pair.place, image=pair.image, first=pair.first, second=pair.second, outcome=said, rater=rater,
                at=time.time(),
            )  # fmt: skip
            _file(standing).append(line)
        return line

    def undo(self, standing: Standing, rater: str) -> None:
        """Take back the last that a rater voted on or skipped; those two pictures come next.

        Raises:
            InvalidRequest: there is nothing to take back.
            StorageFailed: it cannot be written.
        """
        rater = rater_id(rater)
        with self._lock:
            lines = _file(standing).lines()
            last = next((index for index in reversed(range(len(lines))) if lines[index].rater == rater), None)
            if last is None:
                raise InvalidRequest("There is no vote of yours to take back.")
            line = lines.pop(last)
            _file(standing).replace(lines)
            indexes = _indexes(standing.evaluation)
            ends = [indexes.get((name, line.place, line.image)) for name in (line.first, line.second)]
            if ends[0] is not None and ends[1] is not None:
                again = VotePair(
                    place=line.place, image=line.image, first=line.first, second=line.second, first_index=ends[0],
                    second_index=ends[1],
                )  # fmt: skip
                self._offer(standing, rater, again)

    def lines(self, standing: Standing) -> list[VoteLine]:
        """What was voted on and skipped, in that order, between systems of this evaluation."""
        names = {system.name for system in standing.evaluation.systems}
        return [line for line in _file(standing).lines() if line.systems <= names]

    def summary(self, standing: Standing) -> VoteSummary:
        """What the votes say so far, and whether the metric says the same."""
        return summarise(self.lines(standing), self._evaluations.analysis(standing))

    def _free(self, standing: Standing, lines: Sequence[VoteLine], rater: str) -> _Free:
        there = {record.id for record in self._gallery.of_job(standing.id)}
        drawn: dict[str, _Places] = {system.name: set() for system in standing.evaluation.systems}
        for cell in standing.evaluation.cells:
            result = standing.results.get(cell.index)
            if result is not None and result.image_id in there:
                drawn[cell.system.name].add((cell.place, cell.image))
        voted = _voted(lines, rater)
        return {
            frozenset((one, other)): (drawn[one] & drawn[other]) - voted.get(frozenset((one, other)), set())
            for one, other in combinations(drawn, 2)
        }

    def _open(self, standing: Standing, rater: str, free: _Free) -> VotePair | None:
        """What this rater was shown last, if it is still to be voted on."""
        of_rater = (standing.id, rater)
        last = next(
            (offer for offer in reversed(self._offers.values()) if (offer.evaluation_id, offer.rater) == of_rater), None
        )
        if last is None or (last.pair.place, last.pair.image) not in free.get(last.pair.systems, ()):
            return None
        return last.pair if self._is_there(standing, last.pair) else None

    def _drawn(self, standing: Standing, free: _Free, shown: Mapping[frozenset[str], int]) -> VotePair | None:
        """See `next_pair`. What turns out to have lost its file leaves `free`."""
        indexes = _indexes(standing.evaluation)
        while able := [systems for systems, places in free.items() if places]:
            fewest = min(shown.get(systems, 0) for systems in able)
            systems = self._rng.choice([each for each in able if shown.get(each, 0) == fewest])
            place = self._rng.choice(sorted({place for place, _ in free[systems]}))
            image = self._rng.choice(sorted(image for at, image in free[systems] if at == place))
            first, second = self._rng.sample(sorted(systems), 2)
            pair = VotePair(
                place=place, image=image, first=first, second=second, first_index=indexes[first, place, image],
                second_index=indexes[second, place, image],
            )  # fmt: skip
            if self._is_there(standing, pair):
                return pair
            free[systems].discard((place, image))
        return None

    def _is_there(self, standing: Standing, pair: VotePair) -> bool:
        try:
            self.files(standing, pair)
        except NotFound:
            return False
        return True

    def _offer(self, standing: Standing, rater: str, pair: VotePair) -> None:
        self._offers[pair.token] = _Offer(evaluation_id=standing.id, rater=rater, pair=pair)
        while len(self._offers) > _MOST_OFFERS:
            del self._offers[next(iter(self._offers))]


def rater_id(visitor: str) -> str:
    """Under which name the votes of a visitor are kept."""
    return hashlib.sha256(f"rater {visitor}".encode()).hexdigest()[:12]


def _file(standing: Standing) -> VoteFile:
    return VoteFile(standing.folder.path / _VOTES)


def _voted(lines: Sequence[VoteLine], rater: str) -> dict[frozenset[str], _Places]:
    """What a rater voted on or skipped, by the two systems."""
    found: dict[frozenset[str], _Places] = {}
    for line in lines:
        if line.rater == rater:
            found.setdefault(line.systems, set()).add((line.place, line.image))
    return found


def _shown(lines: Sequence[VoteLine], rater: str) -> Counter[frozenset[str]]:
    """How often each two systems were voted on. What this rater skipped counts too, so that nobody who cannot tell two
    systems apart has to skip all that they drew before others come."""
    return Counter(line.systems for line in lines if line.is_vote or line.rater == rater)


def _indexes(evaluation: Evaluation) -> dict[tuple[str, int, int], int]:
    return {(cell.system.name, cell.place, cell.image): cell.index for cell in evaluation.cells}
