"""Several adapters made into one: the sum of what they add, exact or as small as one of them.

For each module ΔW_i = up_i·down_i · alpha_i/rank_i. With the weight w_i that is asked for, s_i = w_i · alpha_i/rank_i.

cat        up = [√|s_i|·up_i …], down = [sign(s_i)·√|s_i|·down_i …]: Σ w_i·ΔW_i exactly, of rank Σ rank_i
svd        of that sum the leading singular directions (Eckart & Young, 1936)
linear     up = Σ √|s_i|·up_i, down = Σ sign(s_i)·√|s_i|·down_i, which also multiplies the factors of one adapter with
           those of another: rough, and only for equal ranks
ties       of each adapter the largest numbers, a share of `density`; of those the ones whose sign the majority has, as
           a mean (Yadav et al. 2023, arXiv:2306.01708)
dare_…     of each adapter numbers drawn by chance, divided by `density` (Yu et al. 2023, arXiv:2311.03099), then as
           above

TIES and DARE act on the factors of `linear`, or with …_svd on each whole ΔW_i, whose result is then split as by svd.
Their arithmetic is PEFT's, and all of this gives what its `add_weighted_adapter` does.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from peft.utils.merge_utils import (
    calculate_majority_sign_mask,
    disjoint_merge,
    prune,
    reshape_weight_task_tensors,
    task_arithmetic,
)
from torch import Tensor

from lora_registry.factors import Shape
from lora_registry.shrinking import shrunk
from lora_registry.weights import AdapterWeights, Change, Hadamard, Kronecker, LowRank
from studio.domain.adapter import PARTS, Part
from studio.domain.errors import Incompatible
from studio.domain.merging import DENSITY, MajoritySign, MergeMethod

_RANDOM: Any = torch.random
"""Which torch leaves without types."""
_WITHOUT_RANK = 16
"""Rank that is taken for a LoKr, whose own says nothing about that of its ΔW."""

LowRanks: TypeAlias = dict[Part, dict[str, LowRank]]
_Combine: TypeAlias = Callable[[list[Tensor], Tensor], Tensor]
"""Makes one tensor of several of one shape, by weights (n,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Share:
    """An adapter in a merger: its name for messages, how much of it, what it adds by part and path, spelt alike in all.

    `shapes` of the weights may be left out for modules whose factors show them, which those of a LoHa do not.
    """

    name: str
    weight: float
    changes: AdapterWeights
    shapes: Mapping[Part, Mapping[str, Shape]] = field(default_factory=dict[Part, Mapping[str, Shape]])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Term:
    """What one adapter adds to the module that is made."""

    name: str
    weight: float
    change: Change
    shape: Shape


@dataclass(frozen=True, kw_only=True)
class _Rule:
    method: MergeMethod
    rank: int | None
    density: float
    majority_sign: MajoritySign


def merged(
    shares: Sequence[Share],
    method: MergeMethod = "svd",
    *,
    rank: int | None = None,
    density: float = DENSITY,
    majority_sign: MajoritySign = "total",
    seed: int = 0,
) -> LowRanks:
    """One adapter made of several, by part and path, in float32; a module that only some have is made of those.

    All its modules have the same alpha: where alphas differ, diffusers (0.42) adds attention layers at a wrong scale.
    `rank` and `density` matter to the methods that have them; a rank of None is the largest of a module's own. The seed
    is that of DARE's chances.

    Raises:
        Incompatible: a kind that the method cannot merge, ranks that differ where they must not, models of other sizes.
    """
    for share in shares:
        _check_kinds(share, method)
    rule = _Rule(method=method, rank=rank, density=density, majority_sign=majority_sign)
    made: LowRanks = {}
    with _RANDOM.fork_rng(devices=[]):
        _RANDOM.manual_seed(seed)  # PEFT draws from the global generator
        for part, path in sorted(_paths(shares), key=lambda place: (PARTS.index(place[0]), place[1])):
            terms = list(_terms(shares, part, path))
            change = _module(path, terms, rule) if terms else None
            if change is not None and change.down.any() and change.up.any():
                made.setdefault(part, {})[path] = change
    return _levelled(made)


def _check_kinds(share: Share, method: MergeMethod) -> None:
    for change in (change for changes in share.changes.values() for change in changes.values()):
        if change.magnitude is not None:
            raise Incompatible(
                f"{share.name} is a DoRA: what it adds depends on the model's own weights, so it cannot be merged.",
                "Name it in the prompt beside the others, or take svd with a plain LoRA in its place.",
            )
        if not isinstance(change, LowRank) and not method.endswith("svd"):
            kind = "LoHa" if isinstance(change, Hadamard) else "LoKr"
            raise Incompatible(f"{share.name} is a {kind}, whose factors {method} cannot merge.", "Take svd.")


def _paths(shares: Sequence[Share]) -> set[tuple[Part, str]]:
    return {(part, path) for share in shares for part, changes in share.changes.items() for path in changes}


def _terms(shares: Sequence[Share], part: Part, path: str) -> Iterator[_Term]:
    for share in shares:
        change = share.changes.get(part, {}).get(path)
        if change is not None:
            factors = plain(change) if isinstance(change, LowRank) else change
            shape = share.shapes.get(part, {}).get(path) or _shown_shape(factors)
            yield _Term(name=share.name, weight=share.weight, change=factors, shape=shape)


def plain(change: LowRank) -> LowRank:
    """In float32, without a core: mid·down is a kernel of the same rank."""
    down = change.down.float()
    if change.mid is not None:
        down = torch.einsum("pr...,ri->pi...", change.mid.float(), down.flatten(1))
    return LowRank(down=down, up=change.up.float(), alpha=change.alpha)


def _shown_shape(change: Change) -> Shape:
    if isinstance(change, LowRank):
        return (len(change.up), *change.down.shape[1:])
    return tuple(change.product().shape)


def _module(path: str, terms: Sequence[_Term], rule: _Rule) -> LowRank | None:
    """What is made of one module, in the shape of its weight; None where no adapter adds anything."""
    shape = _common_shape(path, terms)
    if rule.method in ("svd", "cat", "linear"):
        terms = [term for term in terms if term.weight]
        if not terms:
            return None
    combine = partial(_combined, rule=rule)
    if rule.method == "cat":
        flat = _cat(_low_ranks(terms))
    elif rule.method.endswith("svd"):
        whole = _exact_sum(terms) if rule.method == "svd" else _product(_combined_products(terms, combine))
        rank = max(_usual_rank(term.change) for term in terms) if rule.rank is None else rule.rank
        flat = shrunk({path: whole}, rank * (len(whole.up) + whole.down[0].numel()))[path]
    else:
        flat = _by_factor(path, _low_ranks(terms), combine)
    return LowRank(
        down=flat.down.reshape(flat.rank, *shape[1:]),
        up=flat.up.reshape(shape[0], flat.rank, *(1 for _ in shape[2:])),
        alpha=flat.alpha,
    )


def _common_shape(path: str, terms: Sequence[_Term]) -> Shape:
    """The shape of the weight; a matrix here and a kernel of 1×1 there are the same, and the kernel is kept."""
    first = terms[0]
    for term in terms[1:]:
        if (term.shape[0], math.prod(term.shape[1:])) != (first.shape[0], math.prod(first.shape[1:])):
            raise Incompatible(
                f"{first.name} and {term.name} are made for different models: they change {path[:100]} as "
                f"{_times(first.shape)} and as {_times(term.shape)} numbers.",
                "Merge adapters that fit the same model.",
            )
    return max((term.shape for term in terms), key=len)


def _low_ranks(terms: Sequence[_Term]) -> list[tuple[_Term, LowRank, float]]:
    """Each term with its factors as matrices, down (rank, n) and up (m, rank), and its s_i."""
    found: list[tuple[_Term, LowRank, float]] = []
    for term in terms:
        change = term.change
        assert isinstance(change, LowRank), "other kinds were refused"
        flat = LowRank(down=change.down.flatten(1), up=change.up.flatten(1), alpha=change.alpha)
        found.append((term, flat, term.weight * change.alpha / change.rank))
    return found


def _cat(terms: Sequence[tuple[_Term, LowRank, float]]) -> LowRank:
    downs = [flat.down * math.copysign(math.sqrt(abs(strength)), strength) for _, flat, strength in terms]
    ups = [flat.up * math.sqrt(abs(strength)) for _, flat, strength in terms]
    return _product(torch.cat(ups, dim=1), torch.cat(downs))


def _by_factor(path: str, terms: Sequence[tuple[_Term, LowRank, float]], combine: _Combine) -> LowRank:
    first = terms[0]
    for other in terms[1:]:
        if other[1].rank != first[1].rank:
            raise Incompatible(
                f"{first[0].name} and {other[0].name} have ranks {first[1].rank} and {other[1].rank} in {path[:100]}; "
                "to merge factors they must be equal.",
                "Take svd or cat.",
            )
    roots = torch.tensor([math.sqrt(abs(strength)) for _, _, strength in terms])
    signs = torch.tensor([math.copysign(1.0, strength) for _, _, strength in terms])
    down = combine([flat.down for _, flat, _ in terms], roots * signs)
    return _product(combine([flat.up for _, flat, _ in terms], roots), down)


def _combined_products(terms: Sequence[_Term], combine: _Combine) -> Tensor:
    products = [term.change.product().flatten(1) for term in terms]
    return combine(products, torch.tensor([term.weight for term in terms]))


def _combined(tensors: list[Tensor], weights: Tensor, rule: _Rule) -> Tensor:
    """Drop, elect and add, as far as the method does."""
    if rule.method.startswith(("ties", "dare")) and rule.density < 1:
        is_drawn = rule.method.startswith("dare")
        how = "random" if is_drawn else "magnitude"
        tensors = [prune(tensor, rule.density, how, rescale=is_drawn) for tensor in tensors]
    if "ties" not in rule.method:
        return task_arithmetic(tensors, weights)
    stacked = torch.stack(tensors)
    agreeing = calculate_majority_sign_mask(stacked, method=rule.majority_sign)
    return disjoint_merge(stacked * reshape_weight_task_tensors(stacked, weights), agreeing)


def _exact_sum(terms: Sequence[_Term]) -> LowRank:
    """Σ w_i·ΔW_i: of LoRAs their factors side by side, and with other kinds one matrix that each is added to."""
    if all(isinstance(term.change, LowRank) for term in terms):
        return _cat(_low_ranks(terms))
    total = torch.zeros(terms[0].shape[0], math.prod(terms[0].shape[1:]))
    for term in terms:
        total += term.weight * term.change.product().flatten(1)
    return _product(total)


def _product(up: Tensor, down: Tensor | None = None) -> LowRank:
    """up·down at a scale of 1; a matrix alone is the product of itself and an identity, the smaller of the two."""
    if down is None:
        rows, columns = up.shape
        up, down = (torch.eye(rows), up) if rows < columns else (up, torch.eye(columns))
    return LowRank(down=down, up=up, alpha=float(len(down)))


def _usual_rank(change: Change) -> int:
    if isinstance(change, Kronecker):
        return _WITHOUT_RANK
    return change.first.rank if isinstance(change, Hadamard) else change.rank


def _levelled(made: LowRanks) -> LowRanks:
    """The same changes, the largest rank as every alpha, factors of equal size: float16 loses least of such."""
    alpha = float(max((change.rank for changes in made.values() for change in changes.values()), default=1))
    return {part: {path: _level(change, alpha) for path, change in changes.items()} for part, changes in made.items()}


def _level(change: LowRank, alpha: float) -> LowRank:
    up = change.up * (change.alpha / alpha)
    balance = (up.abs().max() / change.down.abs().max()).sqrt()
    return LowRank(down=change.down * balance, up=up / balance, alpha=alpha)


def _times(shape: Shape) -> str:
    return "×".join(map(str, shape))
