"""The factors that an adapter keeps for one module, and the shape of the weight they make together."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from studio.domain.adapter import Algorithm, Part
from studio.domain.errors import CorruptModel
from studio.domain.tensors import TensorInfo

Shape = tuple[int, ...]

SUPPORTED: tuple[Algorithm, ...] = ("lora", "locon", "dora", "loha", "lokr")
"""What can be computed; the rest is known by name only."""
MAGNITUDES = ("magnitude", "dora_scale")
"""DoRA's lengths, as PEFT and as LyCORIS spell them."""
_OWN_ROLES: Mapping[Algorithm, tuple[str, ...]] = {"loha": ("hada_",), "lokr": ("lokr_",)}
"""How the roles of an algorithm's factors begin; those of the others are LoRA's."""
_RANK_ROLES = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
"""Factors whose first dimension is the rank."""


@dataclass(frozen=True, kw_only=True)
class AdapterModule:
    """The tensors that change one module. `path` is as the file writes it; `tensors` are by role."""

    part: Part
    path: str
    algorithm: Algorithm
    tensors: Mapping[str, TensorInfo]

    @property
    def shown_path(self) -> str:
        """At a length that fits a sentence."""
        return self.path[:100]

    @property
    def rank(self) -> int | None:
        """None for a module whose factors are whole."""
        return next((self.tensors[role].shape[0] for role in _RANK_ROLES if self._has_rows(role)), None)

    def _has_rows(self, role: str) -> bool:
        return role in self.tensors and len(self.tensors[role].shape) > 0


def matrix_shape(module: AdapterModule) -> tuple[int, int]:
    """Rows and columns of the change that a module's factors make, a kernel counted into the columns.

    Raises:
        CorruptModel: a factor is missing, two do not fit together, or one is of another algorithm.
    """
    own = (*_OWN_ROLES.get(module.algorithm, ("up", "down", "mid")), "alpha", *MAGNITUDES)
    stray = sorted(role for role in module.tensors if not role.startswith(own))
    if stray:
        raise _misfit(module, f"it is a {module.algorithm} with a {stray[0]!r}")
    if module.algorithm == "loha":
        sides = _lycoris_product(module, "hada_w1", "hada_t1"), _lycoris_product(module, "hada_w2", "hada_t2")
        if sides[0] != sides[1]:
            raise _misfit(module, f"its halves are {_times(sides[0])} and {_times(sides[1])}")
        return sides[0]
    if module.algorithm == "lokr":
        left, right = _lycoris_product(module, "lokr_w1", "lokr_t1"), _lycoris_product(module, "lokr_w2", "lokr_t2")
        return left[0] * right[0], left[1] * right[1]
    mid = module.tensors.get("mid")
    return _product(module, _matrix(module, "up"), _matrix(module, "down"), mid and mid.shape)


def fits(matrix: tuple[int, int], weight: Shape) -> bool:
    """Whether a change of this shape can be added to `weight`; a 1×1 convolution and a matrix are the same."""
    return matrix == (weight[0], math.prod(weight[1:]))


def magnitude_shape(module: AdapterModule, weight: Shape) -> Shape | None:
    """DoRA's lengths as they multiply `weight`: one for each output (out, 1, …) or each input (1, in, …).

    None for a module without.

    Raises:
        CorruptModel: there are as many of them as neither inputs nor outputs.
    """
    role = next((role for role in MAGNITUDES if role in module.tensors), None)
    if role is None:
        return None
    shape = module.tensors[role].shape
    count = math.prod(shape)
    # LyCORIS measures along either axis and shapes the tensor accordingly; PEFT along the outputs only.
    along_inputs = role == "dora_scale" and len(shape) > 1 and shape[0] == 1
    if count != (weight[1] if along_inputs else weight[0]):
        raise _misfit(module, f"its {count:,} magnitudes are for a weight of another shape than {_times(weight)}")
    ones = (1,) * (len(weight) - 2)
    return (1, count, *ones) if along_inputs else (count, 1, *ones)


def _lycoris_product(module: AdapterModule, factor: str, core: str) -> tuple[int, int]:
    """Shape of a factor that is kept whole, as a·b, or in Tucker form, where a core with a kernel joins aᵀ and b."""
    if factor in module.tensors:
        return _matrix(module, factor)
    a, b = _matrix(module, f"{factor}_a"), _matrix(module, f"{factor}_b")
    if core in module.tensors:
        return _product(module, (a[1], a[0]), b, module.tensors[core].shape)
    return _product(module, a, b, None)


def _product(
    module: AdapterModule, left: tuple[int, int], right: tuple[int, int], core: Shape | None
) -> tuple[int, int]:
    """Shape of left · core · right, where the core (rank, rank, *kernel) adds its kernel to the columns."""
    ranks = (left[1], right[0])
    if (core is None and ranks[0] != ranks[1]) or (core is not None and core[:2] != ranks):
        raise _misfit(module, f"one has rank {ranks[0]}, the other {ranks[1]}")
    return left[0], right[1] * math.prod(core[2:] if core else ())


def _matrix(module: AdapterModule, role: str) -> tuple[int, int]:
    if role not in module.tensors:
        raise CorruptModel(
            f"The adapter is incomplete: {module.shown_path} has no {role!r} factor.", "Fetch or export the file again."
        )
    shape = module.tensors[role].shape
    if len(shape) < 2 or 0 in shape:
        raise _misfit(module, f"its {role!r} factor is {_times(shape) or 'a single number'}")
    return shape[0], math.prod(shape[1:])


def _misfit(module: AdapterModule, what: str) -> CorruptModel:
    return CorruptModel(
        f"The adapter's factors do not fit each other in {module.shown_path}: {what}.",
        "Fetch or export the file again.",
    )


def _times(shape: Shape) -> str:
    return "×".join(map(str, shape))
