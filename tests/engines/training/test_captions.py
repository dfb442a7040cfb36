"""What a picture is called while it is learnt from."""

import numpy as np
import pytest

from engines.training.captions import said, shuffled, with_trigger


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red dog", "sks, a red dog"),
        ("a red sks on white", "a red sks on white"),
        ("two skss", "sks, two skss"),
        ("", "sks"),
    ],
)
def test_the_trigger_word_comes_before_captions_that_lack_it(caption: str, expected: str) -> None:
    assert with_trigger(caption, "sks") == expected
    assert with_trigger(caption, "") == caption


def test_tags_change_places_behind_the_trigger_word() -> None:
    caption, rng = "sks, red, large, indoors, night", np.random.default_rng(0)
    orders = {shuffled(caption, "sks", rng) for _ in range(50)}
    assert len(orders) > 10
    assert all(order.startswith("sks, ") for order in orders)
    assert {tuple(sorted(order.split(", "))) for order in orders} == {tuple(sorted(caption.split(", ")))}


def test_so_many_captions_are_left_out() -> None:
    rng = np.random.default_rng(1)
    told = [said("a dog", "", dropout=0.25, shuffle=False, rng=rng) for _ in range(2000)]
    assert set(told) == {"a dog", ""}
    assert 0.2 < told.count("") / len(told) < 0.3
