"""Buckets are those that kohya's trainers make, and pictures come into them whole but for a margin."""

import pytest

from studio.domain.buckets import Bucket, fit, make_buckets, nearest_bucket

SD15 = {"max_area": 512 * 512, "min_side": 256, "max_side": 1024, "step": 64}
SDXL = {"max_area": 1024 * 1024, "min_side": 512, "max_side": 2048, "step": 64}
POCKET = {"max_area": 128 * 128, "min_side": 64, "max_side": 256, "step": 16}
UPRIGHT = [(256, 832), (256, 896), (256, 960), (256, 1024), (320, 704), (320, 768), (384, 640), (448, 576)]
"""What sd-scripts' make_bucket_resolutions((512, 512), 256, 1024, 64) gives, besides the square and the same lying."""


def test_they_are_those_of_kohya() -> None:
    expected = [*UPRIGHT, (512, 512), *((height, width) for width, height in UPRIGHT)]
    assert [(each.width, each.height) for each in make_buckets(**SD15)] == sorted(expected)


@pytest.mark.parametrize("given", [SD15, SDXL, POCKET, {**SD15, "max_area": 500 * 500}])
def test_none_is_larger_than_the_area_or_off_the_step(given: dict[str, int]) -> None:
    buckets = make_buckets(**given)
    assert len(set(buckets)) == len(buckets) > 5
    for each in buckets:
        assert each.area <= given["max_area"]
        for side in (each.width, each.height):
            assert side % given["step"] == 0 and given["min_side"] <= side <= given["max_side"]
        assert Bucket(each.height, each.width) in buckets


@pytest.mark.parametrize(
    "wrong", [{"step": 0}, {"min_side": 250}, {"max_side": 1000}, {"max_side": 256}, {"min_side": 576}]
)
def test_what_gives_no_buckets_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="px"):
        make_buckets(**{**SD15, **wrong})


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((4000, 4000), (512, 512)),
        ((1200, 800), (640, 384)),
        ((800, 1200), (384, 640)),
        ((3000, 1000), (832, 256)),
        ((10000, 10), (1024, 256)),
        ((530, 500), (512, 512)),
    ],
)
def test_the_nearest_has_the_shape_of_the_picture(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    found = nearest_bucket(*size, make_buckets(**SD15))
    assert (found.width, found.height) == bucket


def test_twice_as_wide_is_as_far_as_twice_as_high() -> None:
    square, wide = Bucket(64, 64), Bucket(256, 64)
    assert nearest_bucket(199, 100, [square, wide]) == square  # 1.99 is nearer to 1 than to 4, by a factor
    assert nearest_bucket(201, 100, [square, wide]) == wide
    assert nearest_bucket(100, 100, [square, Bucket(128, 128)]) == Bucket(128, 128)


@pytest.mark.parametrize("size", [(1000, 700), (333, 1001), (5, 7), (64, 64), (63, 65), (10_000, 1)])
@pytest.mark.parametrize("bucket", [Bucket(64, 64), Bucket(80, 48), Bucket(48, 80)])
def test_a_picture_covers_its_bucket_and_is_cut_in_the_middle(size: tuple[int, int], bucket: Bucket) -> None:
    how = fit(*size, bucket)
    left, top, right, bottom = how.box
    assert (right - left, bottom - top) == (bucket.width, bucket.height)
    assert left >= 0 and top >= 0 and right <= how.width and bottom <= how.height
    assert abs(left - (how.width - right)) <= 1 and abs(top - (how.height - bottom)) <= 1
    assert how.width == bucket.width or how.height == bucket.height
    assert how.width == pytest.approx(size[0] * how.scale, abs=0.51)
    assert how.height == pytest.approx(size[1] * how.scale, abs=0.51)
