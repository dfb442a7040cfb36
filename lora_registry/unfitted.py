"""Adapters read without a checkpoint that they fit: their modules under one spelling, whatever each file writes."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from torch import Tensor

from lora_registry.compatibility import check_supported
from lora_registry.factors import AdapterModule, Shape, matrix_shape
from lora_registry.formats import AdapterFile, families_of, read_adapter
from lora_registry.modules import spellings, underscored
from lora_registry.weights import AdapterWeights, LowRank, load_weights
from studio.domain.adapter import AdapterTarget, FamilyId, Part
from studio.domain.errors import CorruptModel

_BLOCKS = range(4)
_LAYERS = {"down": 2, "up": 3}
"""Resnets of a block, in every family."""
_RESNET = ("conv1", "conv2", "time_emb_proj", "conv_shortcut")
_ENDS = ("conv_in", "conv_out", *(f"{name}.linear_{i}" for name in ("time_embedding", "add_embedding") for i in (1, 2)))
_REST = ".rest"
_LDM_ATTENTION = re.compile(r"(?:input_blocks|output_blocks|middle_block)(?:_\d+)+_")
_KERNEL = re.compile(r"(?:.+_)?(?:conv[12]?|conv_in|conv_out)")
_POINT = re.compile(r".+_conv_shortcut")
_PROJECTION = re.compile(r".+_attentions_\d+_proj_(?:in|out)")
_CORES = ("mid", "hada_t1", "lokr_t2", "lokr_w2", "down")
"""Factors that have the kernel of a convolution, where they have more than two dimensions."""
_HALF = 2.0**-10
"""How far a product may be off whose factors were rounded to float16, each by at most 2⁻¹¹ of itself."""
_LOST = 1e-9
"""Changes of this size are lost when they are added to a weight in float32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Unfitted:
    """What an adapter adds, by part and by `canonical` path, and the shapes of the weights that it is added to."""

    weights: AdapterWeights
    shapes: Mapping[Part, Mapping[str, Shape]]


def load_unfitted(file: AdapterFile) -> Unfitted:
    """Read all weights of `file`.

    Raises:
        Incompatible, CorruptModel: in the words of `compatibility.check_supported`, or one weight is changed twice.
    """
    check_supported(file)
    family = min(families_of(file))
    written: dict[Part, dict[str, Shape]] = {}
    shapes: dict[Part, dict[str, Shape]] = {}
    for module in file.modules:
        path, of_part = canonical(module.part, module.path), shapes.setdefault(module.part, {})
        if path in of_part:
            raise CorruptModel(
                f"{file.path.name} changes {path[:100]} twice, under two spellings.", "Fetch or export the file again."
            )
        shape = of_part[path] = _weight_shape(module, path, family)
        written.setdefault(module.part, {})[underscored(module.path)] = shape
    loaded = load_weights(file.path, AdapterTarget(title=file.path.name, family=family, modules=written))
    weights: AdapterWeights = {
        part: {canonical(part, path): change for path, change in changes.items()} for part, changes in loaded.items()
    }
    return Unfitted(weights=weights, shapes=shapes)


def canonical(part: Part, path: str) -> str:
    """The one spelling of a module's path, with underscores: diffusers', and `text_model_` before encoders' layers."""
    written = underscored(path)
    if part != "unet":
        bare = written.removeprefix("text_model_")
        return f"text_model_{bare}" if bare.startswith("encoder_") else bare
    modules, attentions = _ldm_names()
    if written in modules:
        return modules[written]
    start = _LDM_ATTENTION.match(written)
    if start is None or start[0] not in attentions:
        return written
    return attentions[start[0]] + written[start.end() :]


def check_written(path: Path, changes: Mapping[Part, Mapping[str, LowRank]]) -> None:
    """Compare what is in the file at `path` with the `changes` that were written to it, as float16.

    Raises:
        CorruptModel: a module is missing, or adds something else.
    """
    written = load_unfitted(read_adapter(path)).weights
    for part, of_part in changes.items():
        for name, change in of_part.items():
            found = written.get(part, {}).get(name)
            if found is None or not _is_near(found.product().flatten(1), change):
                raise CorruptModel(
                    f"The merged adapter does not read back as it was made, first in {name[:100]}: its numbers are too "
                    "far apart for float16.",
                    "Give smaller weights, or another method.",
                )


def _is_near(found: Tensor, change: LowRank) -> bool:
    """Whether two changes differ by no more than rounding; sums that cancel are rounded as their terms are."""
    off = found - change.product().flatten(1)
    sizes = LowRank(down=change.down.abs(), up=change.up.abs(), alpha=change.alpha).product()
    return _length(off) <= _HALF * _length(sizes) + _LOST * math.sqrt(found.numel())


def _length(numbers: Tensor) -> float:
    return float(numbers.square().sum().sqrt())


@cache
def _ldm_names() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """LDM's names for the modules of a UNet → diffusers', and the same for what names of attentions begin with."""
    down, up = ([(f"{way}_blocks.{b}", i) for b, i in product(_BLOCKS, range(n))] for way, n in _LAYERS.items())
    attentions = [f"{block}.attentions.{i}{_REST}" for block, i in (*down, *up)] + [f"mid_block.attentions.0{_REST}"]
    places = [f"{block}.resnets.{i}" for block, i in (*down, *up)] + [f"mid_block.resnets.{i}" for i in (0, 1)]
    modules = [f"{place}.{name}" for place, name in product(places, _RESNET)] + [
        *_ENDS,
        *(f"{way}_blocks.{b}.{way}samplers.0.conv" for way, b in product(_LAYERS, _BLOCKS)),
    ]
    # An upsampler is counted after the attention of its block, which some blocks are without.
    table = spellings("unet", modules) | spellings("unet", [*modules, *attentions])
    end = underscored(_REST)
    starts = {ldm.removesuffix("rest"): name.removesuffix("rest") for ldm, name in table.items() if ldm.endswith(end)}
    return (
        {ldm: underscored(name) for ldm, name in table.items() if not ldm.endswith(end)},
        {ldm: underscored(name) for ldm, name in starts.items()},
    )


def _weight_shape(module: AdapterModule, path: str, family: FamilyId) -> Shape:
    rows, columns = matrix_shape(module)
    kernel = _kernel(module, path, family)
    taps = math.prod(kernel)
    return (rows, columns) if columns % taps else (rows, columns // taps, *kernel)


def _kernel(module: AdapterModule, path: str, family: FamilyId) -> Shape:
    """As a factor has it; LoHa and LoKr may keep kernels flat, and then the name tells."""
    cores = (module.tensors[role].shape[2:] for role in _CORES if role in module.tensors)
    stored = next((core for core in cores if core), ())
    if stored or "down" in module.tensors or module.part != "unet":
        return stored
    if _POINT.fullmatch(path) or (family == "sd15" and _PROJECTION.fullmatch(path)):
        return (1, 1)
    return (3, 3) if _KERNEL.fullmatch(path) else ()
