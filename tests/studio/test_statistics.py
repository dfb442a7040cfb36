"""Numbers with how sure they are: intervals hold the truth as often as they say."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from studio.similarity import ssim
from studio.statistics import Estimate, mean, mean_difference, mean_share, mean_share_difference, median, share, spread


def test_a_shares_interval_is_wilsons() -> None:
    estimate = share(9, 10)
    assert (estimate.value, estimate.n) == (0.9, 10)
    assert estimate.low == pytest.approx(0.5958, abs=1e-4) and estimate.high == pytest.approx(0.9821, abs=1e-4)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held_median = held_mean = 0
    for _ in range(120):
        values = rng.normal(3, 1, 30)
        estimate = median(list(values))
        held_median += bool(
            estimate.low is not None and estimate.high is not None and estimate.low <= 3 <= estimate.high
        )
        others = values - rng.normal(0.5, 1, 30)
        difference = mean_difference(list(values), list(others))
        assert difference.low is not None and difference.high is not None
        held_mean += difference.low <= 0.5 <= difference.high
    assert held_median >= 105 and held_mean >= 105


def test_too_few_values_have_no_interval_and_equal_ones_a_point() -> None:
    assert median([1.0, 2.0]) == Estimate(value=1.5, n=2)
    assert median([2.0, 2.0, 2.0]) == Estimate(value=2.0, n=3, low=2.0, high=2.0)
    assert median([2.0]).words() == "2.00" and Estimate(value=2, n=3, low=1, high=3).words() == "2.00 [1.00, 3.00]"
    with pytest.raises(ValueError, match="pairs are needed"):
        mean_difference([1.0], [])


@pytest.mark.parametrize("count", [5, 12, 30])
def test_the_interval_of_a_mean_holds_it_as_often_as_it_says_however_few_there_are(count: int) -> None:
    rng = np.random.default_rng(count)
    held = 0
    for _ in range(200):
        told = mean(list(rng.normal(3, 1, count)))
        assert told.low is not None and told.high is not None and told.n == count
        held += told.low <= 3 <= told.high
    assert 0.9 <= held / 200 <= 0.985


@pytest.mark.parametrize(
    ("chance", "loss", "pictures"), [(0.98, 0.0, 2), (0.95, 0.1, 1), (0.6, 0.1, 2), (0.99, 0.03, 1)]
)
def test_intervals_of_shares_hold_the_truth_near_their_ends_too(chance: float, loss: float, pictures: int) -> None:
    """Prompts differ in how hard they are; of each there are a few pictures."""
    rng = np.random.default_rng(3)
    held_share = held_difference = 0
    for _ in range(600):
        easy = rng.beta(12 * chance, 12 * (1 - chance), 34)
        hard = easy * (1 - loss / chance)
        first, second = (rng.binomial(pictures, each) / pictures for each in (easy, hard))
        told, apart = mean_share(list(first)), mean_share_difference(list(second - first))
        assert told.low is not None and told.high is not None and apart.low is not None and apart.high is not None
        held_share += told.low <= chance <= told.high
        held_difference += apart.low <= -loss <= apart.high
    assert held_share / 600 >= 0.93 and held_difference / 600 >= 0.93


def test_a_share_of_all_is_not_sure_to_be_all() -> None:
    told, apart = mean_share([100.0] * 34, most=100.0), mean_share_difference([0.0] * 34, most=100.0)
    assert told.value == told.high == 100 and told.low is not None and 85 < told.low < 97, "three of n in a hundred"
    assert apart.value == 0 and apart.low is not None and -9 < apart.low < -5 and apart.high == -apart.low


def test_one_value_has_a_mean_without_an_interval() -> None:
    assert mean([2.0]) == Estimate(value=2.0, n=1)
    assert mean([2.0, 2.0]) == Estimate(value=2.0, n=2, low=2.0, high=2.0)


def test_a_spread_is_the_median_with_its_quartiles() -> None:
    told = spread([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (told.lower, told.median, told.upper, told.n) == (2.0, 3.0, 4.0, 5)


def test_likeness_falls_as_a_picture_is_blurred_and_is_nothing_for_noise() -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((64, 64))
    blurs = [ssim(picture, picture.filter(ImageFilter.GaussianBlur(radius))) for radius in (1, 3, 6)]
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert ssim(picture, picture) == pytest.approx(1.0)
    assert 1 > blurs[0] > blurs[1] > blurs[2] > 0
    assert abs(ssim(picture, noise)) < 0.1
    with pytest.raises(ValueError, match="cannot be compared"):
        ssim(picture, picture.resize((32, 32)))


def test_values_that_differ_by_rounding_alone_have_an_interval() -> None:
    rounded = mean([100 * (0.4 + 0.001 * place) - 100 * (0.3 + 0.001 * place) for place in range(20)])
    assert rounded.low == rounded.high == rounded.value == pytest.approx(10)
