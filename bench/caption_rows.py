"""How many rows of captions are built, filtered, merged and verified in a second, and in how much memory.

`python bench/caption_rows.py 265000`: rows in eight shards, one in twenty of them twice with other words, one in a
hundred a failure, one in a hundred flagged by the checks; no pictures, whose hashes are made up. It gives a row of a
table. Each size is to be measured in a process of its own: memory is the most that it ever held. Speeds are by
processor time, so that they can be told on a machine that does other things as well; then come seconds on the clock.
"""

import argparse
import hashlib
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from studio.captions.merging import Chosen, conflict_report, merge  # noqa: E402
from studio.captions.shards import Reading, Shard  # noqa: E402
from studio.captions.verifying import redo_list, verify  # noqa: E402
from studio.domain.captions import Picture, Row, Status  # noqa: E402

SHARDS = 8
SAID = "a young woman with long brown hair looks to the left and smiles in soft light before a plain grey wall"
WORDS = SAID.split()


def rows(count: int) -> Iterator[Row]:
    """So many pictures, and what comes on top; the same ones each time."""
    for number in range(count):
        digest = hashlib.sha256(str(number).encode()).digest()
        shift = number % len(WORDS)
        text = " ".join([f"Portrait {number}:", *WORDS[shift:], *WORDS[:shift], *WORDS[shift::2]])
        at = f"2026-11-{1 + number % 27:02}T12:00:00.000000Z"
        name, by = f"{number:07}.jpg", "groq:qwen/qwen3.6-27b"
        if number % 100 == 7:
            yield Row(digest, name, Status.FAILED, "", "it is damaged", by, "face", at)
            continue
        caption = "I'm sorry, I can't help with that." if number % 100 == 9 else text
        yield Row(digest, name, Status.DONE, caption, "", by, "face", at, 2200, 80)
        if number % 20 == 3:
            yield Row(digest, name, Status.DONE, f"{text} again", "", by, "face", at.replace("T12", "T13"), 2200, 80)


def main() -> None:
    """Measure one size and print its row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as place:
        folder, shards = Path(place) / "p", Path(place) / "s"
        folder.mkdir()
        began, times = time.monotonic(), [time.process_time()]
        opened = [Shard(shards / f"shard-{index + 1}-of-{SHARDS}.jsonl", is_paid=False) for index in range(SHARDS)]
        num_rows = 0
        for row in rows(count):
            opened[row.digest[0] % SHARDS].add(row)
            num_rows += 1
        for shard in opened:
            shard.close()
        times.append(time.process_time())
        reading, chosen = Reading(folders=[shards]), Chosen()
        for row in reading.rows():
            chosen.add(row)
        times.append(time.process_time())
        names = sorted((f"{number:07}.jpg", number) for number in range(count))
        pictures = [Picture(name, hashlib.sha256(str(number).encode()).digest()) for name, number in names]
        times.append(time.process_time())
        merged = merge(folder, pictures, chosen, "metadata")
        conflict_report(merged.conflicts, chosen)
        times.append(time.process_time())
        found = verify(pictures, chosen, reading)
        redo_list(found.to_do)
        times.append(time.process_time())
    assert found.num_pictures == count == found.num_captioned + len(found.failed) + len(found.missing)
    passed = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    build, read, _, merging, verifying = (after - before for before, after in pairwise(times))
    speeds = " | ".join(f"{num_rows / taken:,.0f}" for taken in (build, read, merging, verifying))
    together = f"{num_rows / (read + merging + verifying):,.0f}"
    print(f"| {count:,} | {num_rows:,} | {speeds} | {together} | {passed:.0f} | {peak:,.0f} |")


if __name__ == "__main__":
    main()
