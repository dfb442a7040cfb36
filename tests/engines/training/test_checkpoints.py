"""Which adapters of a run are kept: all of a few, well spread ones of many, whatever interrupts the writing."""

from itertools import pairwise
from pathlib import Path

from engines.training.checkpoints import Checkpoints, spared
from studio.domain.run_files import CHECKPOINTS, checkpoint_name, checkpoint_step


def kept(folder: Path) -> list[int]:
    found = (checkpoint_step(path.name) for path in (folder / CHECKPOINTS).iterdir())
    return sorted(step for step in found if step is not None)


def keep_all(folder: Path, steps: range, best: int | None, most: int) -> None:
    for step in steps:
        Checkpoints(folder, most).keep(step, lambda path: path.write_bytes(b"adapter"), best)


def test_few_are_all_kept(tmp_path: Path) -> None:
    keep_all(tmp_path, range(10, 90, 10), best=None, most=24)
    assert kept(tmp_path) == list(range(10, 90, 10))


def test_of_many_the_first_the_last_the_best_and_an_even_spread_are_kept(tmp_path: Path) -> None:
    keep_all(tmp_path, range(10, 1010, 10), best=130, most=8)
    left = kept(tmp_path)
    assert len(left) == 8 and {10, 130, 1000} <= set(left)
    gaps = [after - before for before, after in pairwise(left)]
    assert max(gaps) <= 4 * 1000 / 7


def test_what_is_left_out_does_not_depend_on_a_kill(tmp_path: Path) -> None:
    keep_all(tmp_path / "whole", range(10, 310, 10), best=40, most=6)
    for step in range(10, 310, 10):
        for _ in range(2):  # a look that a kill cut short is taken again
            keep_all(tmp_path / "killed", range(step, step + 1), best=40, most=6)
    assert kept(tmp_path / "killed") == kept(tmp_path / "whole")


def test_a_write_that_was_cut_short_leaves_nothing(tmp_path: Path) -> None:
    keep_all(tmp_path, range(5, 10, 5), best=None, most=6)
    (tmp_path / CHECKPOINTS / ".tmp-0123").write_bytes(b"half of it")
    Checkpoints(tmp_path)
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()] == [checkpoint_name(5)]


def test_nothing_is_left_out_that_is_needed() -> None:
    assert spared([1, 2, 3], {1, 2, 3}, 2) == []
