"""Adapters merged: what PEFT makes of the same factors, what sums exactly, what is refused and by name."""

import copy
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from lora_registry.export import write_adapter
from lora_registry.formats import read_adapter
from lora_registry.merging import Share, merged
from lora_registry.unfitted import load_unfitted
from lora_registry.weights import AdapterWeights, Change, Hadamard, Kronecker, LowRank
from studio.domain.errors import Incompatible
from studio.domain.merging import MajoritySign, MergeMethod
from tests.lora_registry import making
from tests.lora_registry.test_weights import fused_by_diffusers, weight_of

SHAPES = {"first": (24, 16), "kernel": (12, 6, 3, 3), "last": (10, 24), "point": (8, 12, 1, 1)}


class Small(nn.Module):
    """Two matrices and two convolutions, in order of name, in which PEFT draws its chances."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 24, bias=False)
        self.kernel = nn.Conv2d(6, 12, 3, bias=False)
        self.last = nn.Linear(24, 10, bias=False)
        self.point = nn.Conv2d(12, 8, 1, bias=False)


def low_rank(shape: tuple[int, ...], rank: int, seed: int, alpha: float) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, *shape[1:], generator=generator)
    up = torch.randn(shape[0], rank, *(1 for _ in shape[2:]), generator=generator)
    return LowRank(down=down, up=up, alpha=alpha)


def adapter(seed: int, rank: int = 4, alpha: float = 6.0, paths: tuple[str, ...] = tuple(SHAPES)) -> AdapterWeights:
    return {"unet": {path: low_rank(SHAPES[path], rank, seed + i, alpha) for i, path in enumerate(paths)}}


def shares(*of: tuple[float, AdapterWeights]) -> list[Share]:
    return [Share(name=f"adapter{i}", weight=weight, changes=changes) for i, (weight, changes) in enumerate(of)]


def deltas(changes: Mapping[str, Change]) -> dict[str, Tensor]:
    return {path: change.product().flatten(1) for path, change in changes.items()}


def total(*of: tuple[float, AdapterWeights]) -> dict[str, Tensor]:
    """Σ w·ΔW by the definition."""
    sums: dict[str, Tensor] = {}
    for weight, changes in of:
        for path, delta in deltas(changes["unet"]).items():
            sums[path] = sums.get(path, torch.zeros_like(delta)) + weight * delta
    return sums


def assert_same(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert given.keys() == expected.keys()
    for path, delta in given.items():
        torch.testing.assert_close(delta, expected[path], rtol=1e-4, atol=1e-4)


def merged_by_peft(
    of: list[tuple[float, AdapterWeights]],
    method: MergeMethod,
    *,
    rank: int | None = None,
    density: float | None = None,
    majority_sign: MajoritySign = "total",
    seed: int = 0,
) -> dict[str, Tensor]:
    """ΔW of each module after `add_weighted_adapter`."""
    model = None
    names = [f"adapter{i}" for i in range(len(of))]
    for name, (_, changes) in zip(names, of, strict=True):
        alpha = next(iter(changes["unet"].values())).alpha
        first = next(iter(changes["unet"].values())).rank
        config = LoraConfig(r=first, lora_alpha=alpha, target_modules=list(changes["unet"]))
        if model is None:
            model = get_peft_model(Small(), config, adapter_name=name)
        else:
            model.add_adapter(name, config)
        for path, change in changes["unet"].items():
            layer = model.base_model.model.get_submodule(path)
            layer.lora_A[name].weight.data = change.down.clone()
            layer.lora_B[name].weight.data = change.up.clone()
    begin = model.base_model.inject_adapter

    def begin_and_seed(*given: object) -> None:
        begin(*given)  # which draws the weights of the new adapter
        torch.manual_seed(seed)

    model.base_model.inject_adapter = begin_and_seed
    model.add_weighted_adapter(
        names, [weight for weight, _ in of], "merged", method,
        svd_rank=rank, density=density, majority_sign_method=majority_sign,
    )  # fmt: skip
    return {
        path: model.base_model.model.get_submodule(path).get_delta_weight("merged").detach().flatten(1)
        for path in SHAPES
    }


@pytest.mark.parametrize("method", ["linear", "cat", "svd"])
def test_sums_are_those_of_peft(method: MergeMethod) -> None:
    of = [(0.8, adapter(1)), (-0.5, adapter(20, alpha=2.0)), (1.3, adapter(40))]
    assert_same(deltas(merged(shares(*of), method)["unet"]), merged_by_peft(of, method))


@pytest.mark.parametrize("method", ["ties", "ties_svd", "dare_linear", "dare_ties", "dare_ties_svd"])
@pytest.mark.parametrize("majority_sign", ["total", "frequency"])
@pytest.mark.parametrize("density", [0.3, 0.8])
def test_ties_and_dare_are_those_of_peft(method: MergeMethod, majority_sign: MajoritySign, density: float) -> None:
    of = [(0.8, adapter(1)), (-0.5, adapter(20, alpha=2.0)), (1.3, adapter(40))]
    rank = 3 if method.endswith("svd") else None
    ours = merged(shares(*of), method, rank=rank, density=density, majority_sign=majority_sign, seed=7)
    theirs = merged_by_peft(of, method, rank=rank, density=density, majority_sign=majority_sign, seed=7)
    assert_same(deltas(ours["unet"]), theirs)


def test_svd_of_a_lower_rank_is_that_of_peft() -> None:
    of = [(1.0, adapter(1)), (0.7, adapter(20, rank=6))]
    ours = merged(shares(*of), "svd", rank=2)["unet"]
    assert {change.rank for change in ours.values()} == {2}
    assert_same(deltas(ours), merged_by_peft(of, "svd", rank=2))


def test_a_module_that_one_adapter_has_is_made_of_that() -> None:
    of = [(0.5, adapter(1, paths=("first", "kernel"))), (2.0, adapter(20, paths=("kernel", "last", "point")))]
    for method in ("cat", "svd", "linear"):
        ours = merged(shares(*of), method, **({"rank": 8} if method == "svd" else {}))["unet"]
        if method == "linear":
            assert_same(deltas(ours), merged_by_peft(of, "linear"))
        else:
            assert_same(deltas(ours), total(*of))


def test_cat_of_unequal_ranks_adds_what_both_add() -> None:
    of = [(0.5, adapter(1, rank=2)), (-1.5, adapter(20, rank=5))]
    ours = merged(shares(*of), "cat")["unet"]
    assert {path: change.rank for path, change in ours.items()} == dict.fromkeys(SHAPES, 7)
    assert_same(deltas(ours), total(*of))
    assert [ours[path].down.shape[1:] for path in SHAPES] == [torch.Size(shape[1:]) for shape in SHAPES.values()]
    assert [ours[path].up.shape[2:] for path in SHAPES] == [(), (1, 1), (), (1, 1)]


def test_every_module_has_the_same_alpha_and_factors_of_one_size() -> None:
    small = adapter(1, rank=2, paths=("first",))["unet"]["first"]
    tiny = LowRank(down=small.down * 1e4, up=small.up * 1e-7, alpha=2.0)
    ours = merged(shares((1.0, {"unet": {"first": tiny}}), (1.0, adapter(20, paths=("kernel",)))), "cat")["unet"]
    assert {change.alpha for change in ours.values()} == {4.0}
    torch.testing.assert_close(ours["first"].down.abs().max(), ours["first"].up.abs().max())
    assert_same(
        deltas(ours), {**total((1.0, {"unet": {"first": tiny}})), **total((1.0, adapter(20, paths=("kernel",))))}
    )


@pytest.mark.parametrize("method", ["svd", "cat", "linear"])
def test_one_and_nothing_of_another_is_the_first(method: MergeMethod) -> None:
    ours = merged(shares((1.0, adapter(1)), (0.0, adapter(20, rank=9))), method)["unet"]
    assert {change.rank for change in ours.values()} == {4}
    assert_same(deltas(ours), total((1.0, adapter(1))))


def test_what_cancels_is_left_out() -> None:
    both = shares((1.0, adapter(1, paths=("first", "last"))), (-1.0, adapter(1, paths=("first",))))
    assert set(merged(both, "linear")["unet"]) == {"last"}


def test_a_core_between_the_factors_becomes_a_kernel_of_the_same_rank() -> None:
    generator = torch.Generator().manual_seed(3)
    down, mid, up = (torch.randn(*s, generator=generator) for s in ((4, 6, 1, 1), (4, 4, 3, 3), (12, 4, 1, 1)))
    cored: AdapterWeights = {"unet": {"kernel": LowRank(down=down, up=up, alpha=2.0, mid=mid)}}
    of = [(1.0, cored), (0.5, adapter(20, paths=("kernel",)))]
    assert_same(deltas(merged(shares(*of), "cat")["unet"]), total(*of))
    assert merged(shares(*of), "linear")["unet"]["kernel"].down.shape == (4, 6, 3, 3)


def loha() -> Hadamard:
    first, second = low_rank((24, 16), 2, 5, 2.0), low_rank((24, 16), 2, 6, 2.0)
    return Hadamard(first=first, second=second)


def lokr() -> Kronecker:
    generator = torch.Generator().manual_seed(8)
    return Kronecker(
        first=torch.randn(4, 2, generator=generator), second=torch.randn(6, 8, generator=generator), scale=0.5
    )


def test_loha_and_lokr_are_summed_whole_and_split() -> None:
    of: list[tuple[float, AdapterWeights]] = [
        (0.5, {"unet": {"first": loha()}}),
        (-1.0, {"unet": {"first": lokr()}}),
        (1.0, adapter(1, paths=("first",))),
    ]
    whole = total(*of)["first"]
    assert_same(deltas(merged(shares(*of), "svd", rank=24)["unet"]), {"first": whole})
    values = torch.linalg.svdvals(whole)
    lost = whole - merged(shares(*of), "svd", rank=5)["unet"]["first"].product()
    torch.testing.assert_close(lost.square().sum(), values[5:].square().sum(), rtol=1e-3, atol=1e-3)
    assert merged(shares(*of), "svd")["unet"]["first"].rank == 16  # as large as the two can be


def test_kernels_that_a_loha_keeps_flat_come_out_as_the_weight_has_them() -> None:
    first, second = low_rank((12, 54), 2, 5, 2.0), low_rank((12, 54), 2, 6, 2.0)
    changes: AdapterWeights = {"unet": {"kernel": Hadamard(first=first, second=second)}}
    share = Share(name="loha", weight=1.0, changes=changes, shapes={"unet": {"kernel": SHAPES["kernel"]}})
    made = merged([share, *shares((1.0, adapter(1, paths=("last",))))], "svd", rank=4)["unet"]
    assert made["kernel"].down.shape == (4, 6, 3, 3) and made["kernel"].up.shape == (12, 4, 1, 1)
    assert_same({"kernel": deltas(made)["kernel"]}, total((1.0, changes)))


@pytest.mark.parametrize("method", ["cat", "linear", "ties", "dare_linear", "dare_ties"])
@pytest.mark.parametrize(("kind", "change"), [("LoHa", loha()), ("LoKr", lokr())])
def test_factors_of_other_kinds_are_refused_by_name(method: MergeMethod, kind: str, change: Change) -> None:
    both = shares((1.0, adapter(1)), (1.0, {"unet": {"first": change}}))
    with pytest.raises(Incompatible, match=rf"^adapter1 is a {kind}, .*{method} cannot merge\. Take svd\.$") as caught:
        merged(both, method)
    assert caught.value.hint == "Take svd."


@pytest.mark.parametrize("method", ["cat", "svd", "ties_svd"])
def test_a_dora_is_refused_by_name(method: MergeMethod) -> None:
    plain = low_rank((24, 16), 2, 5, 2.0)
    dora = LowRank(down=plain.down, up=plain.up, alpha=2.0, magnitude=torch.ones(24, 1))
    with pytest.raises(Incompatible, match=r"^adapter1 is a DoRA: what it adds depends on the model"):
        merged(shares((1.0, adapter(1)), (1.0, {"unet": {"first": dora}})), method)


def test_unequal_ranks_are_refused_where_factors_are_merged() -> None:
    both = shares((1.0, adapter(1)), (1.0, adapter(20, rank=5)))
    with pytest.raises(Incompatible, match=r"adapter0 and adapter1 have ranks 4 and 5 in first.*Take svd or cat"):
        merged(both, "linear")


def test_weights_of_other_sizes_are_refused() -> None:
    other: AdapterWeights = {"unet": {"first": low_rank((24, 20), 4, 1, 4.0)}}
    with pytest.raises(Incompatible, match=r"adapter0 and adapter1 are made for different models.*24×16 and as 24×20"):
        merged(shares((1.0, adapter(1)), (1.0, other)), "svd")


def test_a_matrix_and_a_kernel_of_one_by_one_are_the_same_weight() -> None:
    flat = {"unet": {"point": low_rank((8, 12), 4, 1, 4.0)}}
    for of in (
        [(1.0, flat), (1.0, adapter(20, paths=("point",)))],
        [(1.0, adapter(20, paths=("point",))), (1.0, flat)],
    ):
        made = merged(shares(*of), "svd", rank=8)["unet"]
        assert made["point"].down.shape == (8, 12, 1, 1)
        assert_same(deltas(made), total(*of))


def test_the_seed_decides_the_chances_and_nothing_else_is_drawn() -> None:
    of = shares((1.0, adapter(1)), (1.0, adapter(20)))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = deltas(merged(of, "dare_linear", seed=1)["unet"])
    assert torch.equal(torch.rand(3), expected)
    again, other = (deltas(merged(of, "dare_linear", seed=seed)["unet"]) for seed in (1, 2))
    assert all(torch.equal(first[path], again[path]) for path in SHAPES)
    assert not any(torch.allclose(first[path], other[path]) for path in SHAPES)


def test_with_nothing_dropped_ties_still_elects_a_sign() -> None:
    up = torch.ones(1, 1)
    rows = ([3.0, -1.0], [1.0, 2.0])
    of = [(1.0, {"unet": {"first": LowRank(down=torch.tensor([row]), up=up, alpha=1.0)}}) for row in rows]
    made = merged(shares(*of), "ties_svd", rank=1, density=1.0)["unet"]["first"]
    torch.testing.assert_close(made.product(), torch.tensor([[2.0, 2.0]]))
    plain = merged(shares(*of), "dare_linear", density=1.0)["unet"]["first"]
    torch.testing.assert_close(plain.product(), torch.tensor([[8.0, 2.0]]))


def test_what_is_merged_stays_as_it_was() -> None:
    of = shares((0.5, adapter(1)), (1.0, adapter(20)))
    before = copy.deepcopy([deltas(share.changes["unet"]) for share in of])
    merged(of, "ties")
    merged(of, "cat")
    assert all(
        torch.equal(delta, deltas(share.changes["unet"])[path])
        for share, kept in zip(of, before, strict=True)
        for path, delta in kept.items()
    )


@pytest.mark.filterwarnings("ignore")  # the library's own, about itself
@pytest.mark.parametrize("method", ["cat", "svd"])
def test_diffusers_adds_what_was_merged(tmp_path: Path, method: MergeMethod) -> None:
    """Of a file whose modules have two ranks, as some are of both adapters and some of one."""
    factors = making.tiny_factors()
    ours = making.save(tmp_path / "ours.safetensors", making.as_kohya(factors))
    theirs = making.save(tmp_path / "theirs.safetensors", making.as_ldm_kohya(factors[:4]))
    both = [(0.5, load_unfitted(read_adapter(path))) for path in (ours, theirs)]
    given = [Share(name="it", weight=weight, changes=read.weights, shapes=read.shapes) for weight, read in both]
    file = tmp_path / "merged.safetensors"
    write_adapter(file, merged(given, method), "sd15", dtype=torch.float32)
    fused = fused_by_diffusers(file)
    assert {(f.part, f.path) for f in factors} == set(fused)
    for i, f in enumerate(factors):
        expected = weight_of(f.part, f.path) + f.delta.reshape(weight_of(f.part, f.path).shape) * (
            1.0 if i < 4 else 0.5
        )
        torch.testing.assert_close(fused[f.part, f.path], expected, rtol=1e-4, atol=1e-4)
