"""Which look at a training is the best: measured, but not by a picture more or less."""

from pathlib import Path

import torch

from engines.training.best import Best
from studio.domain.run_events import Looked, best_look


def looks(*right: int | None, checked: int = 24, validation: float | None = None) -> list[Looked]:
    return [
        Looked(step=10 * index, right=each, checked=checked, validation=validation) for index, each in enumerate(right)
    ]


def best_step(shown: list[Looked], folder: Path) -> int:
    """By all looks together, and one after the other by what a run keeps, which is opened anew each time."""
    for look in shown:
        Best(folder).offer(look, lambda step=look.step: {"unet": {"up": torch.tensor(step)}})
    kept, best = Best(folder), best_look(shown)
    assert kept.look == best and kept.factors() == {"unet": {"up": torch.tensor(best.step)}}
    return best.step


def test_a_picture_more_is_luck_and_later_is_steadier(tmp_path: Path) -> None:
    assert best_step(looks(10, 17, 21, 17, 20, 20), tmp_path) == 50


def test_what_gets_clearly_worse_is_not_kept(tmp_path: Path) -> None:
    assert best_step(looks(10, 17, 22, 20, 18, 12), tmp_path) == 20


def test_of_all_right_none_is_luck(tmp_path: Path) -> None:
    assert best_step(looks(0, 24, 23, 24, 23), tmp_path) == 30


def test_luck_is_counted_from_the_peak_and_not_step_by_step(tmp_path: Path) -> None:
    assert best_step(looks(0, 20, 19, 18, 17, 16, 15), tmp_path) == 20


def test_without_a_judge_the_lowest_loss_is_best_and_without_any_measure_the_last(tmp_path: Path) -> None:
    losses = [0.5, 0.3, 0.2, 0.201, 0.25]
    (tmp_path / "loss").mkdir()
    (tmp_path / "nothing").mkdir()
    shown = [Looked(step=10 * index, validation=loss) for index, loss in enumerate(losses)]
    assert best_step(shown, tmp_path / "loss") == 20
    assert best_step(looks(None, None, None), tmp_path / "nothing") == 20


def test_the_untrained_model_is_never_the_best(tmp_path: Path) -> None:
    assert best_look(looks(24)) is None
    assert best_step(looks(24, 3, 2), tmp_path) == 20


def test_who_stops_early_counts_from_what_measured_best(tmp_path: Path) -> None:
    best = Best(tmp_path)
    for look in looks(0, 21, 20, 20):
        best.offer(look, dict)
    assert best.look.step == 30 and best.peak.step == 10
