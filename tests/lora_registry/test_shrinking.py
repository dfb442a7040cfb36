"""Adapters made smaller: nothing lost while there is room, and as little as can be when there is not."""

import pytest
import torch

from lora_registry.shrinking import shrunk
from lora_registry.weights import LowRank


def change(out: int, inner: int, rank: int, seed: int, alpha: float = 8.0, kernel: int = 1) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    taps = (kernel, kernel) if kernel > 1 else ()
    down = torch.randn(rank, inner, *taps, generator=generator)
    up = torch.randn(out, rank, *(1 for _ in taps), generator=generator)
    return LowRank(down=down, up=up, alpha=alpha)


def numbers(changes: dict[str, LowRank]) -> int:
    return sum(each.down.numel() + each.up.numel() for each in changes.values())


def test_with_room_enough_an_adapter_adds_the_same() -> None:
    changes = {"a": change(12, 10, 4, 0), "b": change(6, 5, 3, 1, kernel=3)}
    same = shrunk(changes, 10_000)
    for path, one in same.items():
        assert one.down.shape[1:] == changes[path].down.shape[1:] and one.up.shape[2:] == changes[path].up.shape[2:]
        torch.testing.assert_close(one.product(), changes[path].product(), atol=1e-4, rtol=1e-4)


def test_what_is_lost_is_the_least_that_a_matrix_of_that_rank_can_lose() -> None:
    whole = change(20, 30, 8, 2)
    (small,) = shrunk({"a": whole}, 3 * 50).values()
    assert small.rank == 3
    values = torch.linalg.svdvals(whole.product())
    lost = (whole.product() - small.product()).square().sum()
    torch.testing.assert_close(lost, values[3:].square().sum(), atol=1e-2, rtol=1e-3)


def test_room_goes_to_the_layers_that_change_most_and_is_kept_to() -> None:
    strong, weak = change(10, 10, 4, 3), change(10, 10, 4, 4)
    changes = {"strong": strong, "weak": LowRank(down=weak.down * 1e-3, up=weak.up, alpha=weak.alpha)}
    small = shrunk(changes, 3 * 20 + 5)
    assert set(small) == {"strong"} and small["strong"].rank == 3
    assert numbers(small) <= 65


def test_a_change_with_a_magnitude_is_refused() -> None:
    plain = change(4, 4, 2, 5)
    dora = LowRank(down=plain.down, up=plain.up, alpha=2.0, magnitude=torch.ones(4, 1))
    with pytest.raises(ValueError, match="plain low-rank"):
        shrunk({"a": dora}, 100)
