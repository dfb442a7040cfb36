"""Which pictures come in which step."""

from collections import Counter

from engines.training.order import Order

GROUPS = [[0, 1, 2, 3, 4], [5, 6, 7], [8]]


def test_every_picture_comes_once_an_epoch_with_others_of_its_size() -> None:
    order = Order(GROUPS, batch_size=2, seed=1)
    assert order.batches_per_epoch == 3 + 2 + 1
    for epoch in range(3):
        batches = [order.batch(epoch * 6 + index) for index in range(6)]
        assert Counter(pick for batch in batches for pick in batch) == Counter(range(9))
        assert all(any(set(batch) <= set(group) for group in GROUPS) for batch in batches)
        assert max(map(len, batches)) == 2


def test_a_batch_depends_on_its_place_alone_and_epochs_differ() -> None:
    first, again = Order(GROUPS, 2, 1), Order(GROUPS, 2, 1)
    places = list(range(30))
    assert [first.batch(place) for place in places] == [again.batch(place) for place in reversed(places)][::-1]
    epochs = [tuple(first.batch(epoch * 6 + index) for index in range(6)) for epoch in range(5)]
    assert len(set(epochs)) == 5
    assert epochs[0] != tuple(Order(GROUPS, 2, 2).batch(index) for index in range(6))
