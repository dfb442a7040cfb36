"""Captions that fit other pictures better than their own, as a judge sees it."""

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from studio.captions.merging import Chosen
from studio.domain.captions import Picture
from studio.domain.scores import Score

NUM_OTHERS = 8
"""So many captions of other pictures a caption is held against."""

Judge = Callable[[Path, Sequence[str]], tuple[Score, ...] | None]
"""How well each of some texts fits the picture in a file; None where it cannot say."""


def mismatched(
    folder: Path,
    pictures: Iterable[Picture],
    chosen: Chosen,
    judge: Judge,
    on_progress: Callable[[int], None] = lambda done: None,
) -> frozenset[bytes]:
    """The pictures whose caption the judge puts below the middle of `NUM_OTHERS` that belong to other pictures, drawn
    by the picture's hash: the same ones each time. Scores are compared within a picture only, since pictures differ in
    how high they score at all."""
    captions = sorted({row.caption for digest in chosen.digests() if (row := chosen.row(digest)) is not None})
    found: set[bytes] = set()
    for number, picture in enumerate(pictures, start=1):
        on_progress(number)
        row = chosen.row(picture.digest)
        if row is None or len(captions) < 3 or picture.digest in found:
            continue
        drawn = random.Random(picture.digest).sample(captions, min(NUM_OTHERS + 1, len(captions)))
        others = [caption for caption in drawn if caption != row.caption][:NUM_OTHERS]
        scores = judge(folder / picture.name, [row.caption, *others])
        if scores is None:
            continue
        own, *theirs = (score.cosine for score in scores)
        if sum(value > own for value in theirs) > len(theirs) / 2:
            found.add(picture.digest)
    return frozenset(found)
