"""How unlike pictures are, and how like what was trained on: on vectors where the answer is known, and on pictures."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.base import Engine
from engines.pocket.grammar import parse
from engines.pocket.world import render
from studio.diversity import Vector, diversity, memorisation, near_threshold, nearest, prompt_diversities
from studio.scoring import POCKET_JUDGE
from studio.settings import PROJECT_ROOT
from studio.statistics import share

CRESCENTS = sorted((PROJECT_ROOT / "examples" / "crescents").glob("*.png"))


def turned(degrees: float) -> tuple[float, float]:
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def test_diversity_is_one_less_the_mean_cosine_of_pairs_and_its_unit_is_the_prompt() -> None:
    drawn = {("a", 0): turned(0), ("a", 1): turned(60), ("a", 2): turned(120)}
    drawn |= {("b", 0): turned(5), ("b", 1): turned(5), ("alone", 0): turned(7)}
    told = prompt_diversities(drawn)
    assert told == pytest.approx({"a": 1 - (0.5 + 0.5 - 0.5) / 3, "b": 0})
    over = diversity(drawn)
    assert over is not None and over.n == 2 and over.value == pytest.approx(told["a"] / 2)
    assert over.low is not None and over.low < over.value
    longer = {key: tuple(7 * value for value in vector) for key, vector in drawn.items()}
    assert prompt_diversities(longer) == pytest.approx(told), "the length of a vector says nothing"


def test_of_one_picture_each_there_is_no_diversity() -> None:
    assert diversity({("a", 0): turned(0), ("b", 0): turned(90)}) is None
    assert diversity({}) is None


def test_the_number_of_pictures_does_not_move_diversity() -> None:
    rng = np.random.default_rng(3)
    middle = np.concatenate([[3.0], np.zeros(15)])

    def of(count: int) -> float:
        told = [
            prompt_diversities({("a", seed): middle + rng.normal(size=16) for seed in range(count)})["a"]  # type: ignore[dict-item]
            for _ in range(300)
        ]
        return float(np.mean(told))

    assert of(2) == pytest.approx(of(8), abs=0.03)


def test_the_nearest_training_picture_is_named() -> None:
    training = {"left.png": turned(180), "right.png": turned(0), "up.png": turned(90)}
    found = nearest({("a", 0): turned(10), ("a", 1): turned(100)}, training)
    assert [each.name for each in found.values()] == ["right.png", "up.png"]
    assert found["a", 0].cosine == pytest.approx(math.cos(math.radians(10)))
    assert nearest({}, training) == {} == nearest({("a", 0): turned(1)}, {})


def ring(count: int = 12) -> Mapping[str, Vector]:
    """Training pictures that are 30 degrees apart."""
    return {f"{place}.png": turned(360 / count * place) for place in range(count)}


def test_a_share_that_is_planted_is_found() -> None:
    assert near_threshold(ring()) == pytest.approx(math.cos(math.radians(30)))
    wide = {name: (*vector, 0.0) for name, vector in ring().items()}
    far = {("a", seed): (*(0.3 * np.array(turned(30 * seed))), 1.0) for seed in range(15)}
    near = {("b", seed): (*turned(30 * seed + 4), 0.0) for seed in range(5)}
    told = memorisation({**far, **near}, wide)
    assert told is not None and told.share == share(5, 20)
    assert told.nearest["b", 2].name == "2.png"
    cleared = memorisation({**far, **near}, wide, cleared={("b", 2), ("a", 3)})
    assert cleared is not None and cleared.share == share(4, 20), "what is right is no copy, however near"


def test_training_pictures_that_are_there_twice_hide_nothing() -> None:
    twice = {**ring(), **{f"again-{name}": vector for name, vector in ring().items()}}
    assert near_threshold(twice) == near_threshold(ring())


def test_of_few_training_pictures_nobody_can_tell_what_is_near() -> None:
    four = {f"{place}.png": turned(90 * place) for place in range(4)}
    assert near_threshold(four) is None and memorisation({("a", 0): turned(0)}, four) is None
    assert near_threshold({}) is None and memorisation({}, ring()) is None


def test_of_pictures_like_the_training_pictures_about_one_in_twenty_is_near() -> None:
    rng = np.random.default_rng(5)
    training = {f"{place}.png": vector for place, vector in enumerate(rng.normal(size=(300, 12)))}
    fresh = {("a", seed): vector for seed, vector in enumerate(rng.normal(size=(2000, 12)))}
    told = memorisation(fresh, training)  # type: ignore[arg-type]
    assert told is not None and 0.02 < told.share.value < 0.09


def test_a_training_picture_and_its_recoloured_copy_are_found_and_another_scene_is_not(
    engine: Engine, tmp_path: Path
) -> None:
    training = {path.name: engine.embed(POCKET_JUDGE, path) for path in CRESCENTS}
    pixels = np.asarray(Image.open(CRESCENTS[3]).convert("RGB"), dtype=float)
    Image.fromarray((pixels * (1, 0.94, 0.88)).astype(np.uint8)).save(tmp_path / "tinted.png")
    scene = parse("two blue stars on a cream background")
    assert scene is not None
    render(scene, seed=3).save(tmp_path / "other.png")
    places = {("itself", 0): CRESCENTS[3], ("tinted", 0): tmp_path / "tinted.png", ("other", 0): tmp_path / "other.png"}
    told = memorisation({key: engine.embed(POCKET_JUDGE, path) for key, path in places.items()}, training)
    assert told is not None and told.share == share(2, 3)
    assert told.nearest["itself", 0].cosine == pytest.approx(1, abs=1e-5)
    assert told.nearest["tinted", 0].name == CRESCENTS[3].name and told.nearest["tinted", 0].cosine > 0.9
    assert told.nearest["other", 0].cosine < told.threshold < 0.7
