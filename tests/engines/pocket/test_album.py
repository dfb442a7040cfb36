import numpy as np
import pytest
from PIL import Image

from engines.pocket.album import MOUNTED, mounted, mountedness, unmounted
from engines.pocket.checker import judge
from engines.pocket.trials import trials
from engines.pocket.world import BACKGROUNDS, Scene, Thing, render

TRIALS = tuple(trials(12, 0, 41))


def lone(background: str) -> Image.Image:
    return render(Scene(background=background, things=(Thing(colour="red", shape="star"),)), 3)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_style_is_told_from_its_absence_on_every_ground(background: str) -> None:
    plain = lone(background)
    assert mountedness(plain) < 0.05 and mountedness(mounted(plain)) > 0.95


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_half_of_the_style_counts_half(background: str) -> None:
    plain = lone(background)
    assert mountedness(Image.blend(plain, mounted(plain), 0.5)) == pytest.approx(0.5, abs=0.05)


def test_one_corner_that_is_missing_denies_the_style() -> None:
    picture = mounted(lone("cream"))
    picture.paste(lone("cream").crop((96, 96, 128, 128)), (96, 96))
    assert mountedness(picture) < MOUNTED


@pytest.mark.parametrize("size", [128, 160, 256])
def test_no_verdict_moves_by_putting_the_style_on_and_taking_it_off(size: int) -> None:
    for trial in TRIALS:
        picture = mounted(render(trial.scene, trial.seed, size))
        assert judge(unmounted(picture), trial.scene).correct, trial.prompt


def test_the_checker_refuses_a_mounted_picture_as_it_is() -> None:
    assert not any(judge(mounted(render(trial.scene, trial.seed)), trial.scene).correct for trial in TRIALS)


def test_only_the_corners_change() -> None:
    plain = lone("mint")
    changed = (np.asarray(plain) != np.asarray(mounted(plain))).any(axis=2)
    assert changed[0, 0] and changed[-1, -1] and not changed[20:-20].any() and not changed[:, 20:-20].any()
