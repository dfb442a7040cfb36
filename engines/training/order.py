"""In which order pictures are learnt from: every one once an epoch, in batches of one size."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np


class Order:
    """Batches of the numbers in `groups`; those of one group have pictures of one size. A batch depends on nothing but
    its place in the whole training, so that a training that is resumed goes on as it would have."""

    def __init__(self, groups: Sequence[Sequence[int]], batch_size: int, seed: int) -> None:
        self._groups = tuple(tuple(group) for group in groups)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    @property
    def batches_per_epoch(self) -> int:
        """The last of each group may be smaller: nothing is dropped."""
        return sum(-(-len(group) // self._batch_size) for group in self._groups)

    def batch(self, place: int) -> tuple[int, ...]:
        """The `place`-th batch of the training, from 0."""
        epoch, index = divmod(place, self.batches_per_epoch)
        return self._epoch(epoch)[index]

    def _shuffled(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        rng = np.random.default_rng([self._seed, 21, epoch])
        batches: list[tuple[int, ...]] = []
        for group in self._groups:
            order = [group[int(index)] for index in rng.permutation(len(group))]
            starts = range(0, len(order), self._batch_size)
            batches += [tuple(order[start : start + self._batch_size]) for start in starts]
        return tuple(batches[int(index)] for index in rng.permutation(len(batches)))
