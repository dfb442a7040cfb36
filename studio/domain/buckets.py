"""Sizes that pictures of any shape are trained at, so that little of them is cut off: kohya's aspect-ratio buckets."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Bucket:
    """A size in pixels that all pictures of a batch share."""

    width: int
    height: int

    @property
    def area(self) -> int:
        return self.width * self.height

    def __str__(self) -> str:
        return f"{self.width}×{self.height}"


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a picture comes into a bucket: resized to `width` × `height`, then cut to `box`, which is (left, top, right,
    bottom) as Pillow has it. `scale` over 1 means that the picture is enlarged."""

    scale: float
    width: int
    height: int
    box: tuple[int, int, int, int]


def make_buckets(*, max_area: int, min_side: int, max_side: int, step: int) -> tuple[Bucket, ...]:
    """All sizes whose sides are multiples of `step` from `min_side` to `max_side`, each as high as `max_area` (pixels)
    allows for its width, upright and lying, sorted: what `make_bucket_resolutions` of kohya-ss/sd-scripts gives.

    Stable Diffusion 1.5 has 512², 256 to 1024 in steps of 64, SDXL 1024², 512 to 2048 in steps of 64.

    Raises:
        ValueError: the step is no positive divisor of both sides, or no size lies between them.
    """
    if step < 1 or min_side < step or min_side % step or max_side % step:
        raise ValueError(f"sides from {min_side} to {max_side} px are no multiples of a step of {step} px")
    square = math.isqrt(max_area) // step * step
    if not min_side <= square <= max_side:
        raise ValueError(f"a square of {max_area} pixels has no side from {min_side} to {max_side} px")
    found = {Bucket(square, square)}
    for width in range(min_side, max_side + 1, step):
        height = min(max_side, max_area // width // step * step)
        if height >= min_side:
            found |= {Bucket(width, height), Bucket(height, width)}
    return tuple(sorted(found))


def nearest_bucket(width: int, height: int, buckets: Iterable[Bucket]) -> Bucket:
    """The bucket whose shape is nearest to that of a picture, by the logarithm of the aspect ratio: 2:1 is as far from
    a square as 1:2. Of several the largest, which keeps most of the picture.

    Raises:
        ValueError: there are no buckets.
    """
    ratio = math.log(width / height)
    return min(buckets, key=lambda bucket: (abs(math.log(bucket.width / bucket.height) - ratio), -bucket.area))


def fit(width: int, height: int, bucket: Bucket) -> Fit:
    """The least size at which a picture of `width` × `height` covers `bucket`, and the middle of it."""
    scale = max(bucket.width / width, bucket.height / height)
    resized = max(bucket.width, round(width * scale)), max(bucket.height, round(height * scale))
    left, top = (resized[0] - bucket.width) // 2, (resized[1] - bucket.height) // 2
    box = (left, top, left + bucket.width, top + bucket.height)
    return Fit(scale=scale, width=resized[0], height=resized[1], box=box)
