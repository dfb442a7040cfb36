"""What kind of adapter a file is, told by the names and shapes of its tensors; its own word only breaks ties."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_registry import texts
from lora_registry.factors import SUPPORTED, AdapterModule, matrix_shape
from lora_registry.modules import underscored
from lora_registry.names import algorithm_of, read_name
from lora_registry.tensor_data import TensorReader
from studio.domain.adapter import FAMILY_TITLES, PARTS, Adapter, Algorithm, FamilyId, Layout, Part
from studio.domain.errors import CorruptModel
from studio.domain.tensors import TensorInfo, read_header

FAMILY_BY_WIDTH: Mapping[int, FamilyId] = {768: "sd15", 1024: "sd21", 2048: "sdxl"}
"""How many numbers stand for a token where the UNet reads the text (cross-attention)."""
_FAMILIES_BY_HIDDEN_WIDTH: Mapping[int, frozenset[FamilyId]] = {
    768: frozenset({"sd15", "sdxl"}),
    1024: frozenset({"sd21"}),
    1280: frozenset({"sdxl"}),
}
_ANY_FAMILY = frozenset(FAMILY_TITLES)
_READ_TEXT = ("attn2_to_k", "attn2_to_v")
_READ_HIDDEN = ("self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj", "mlp_fc1")
"""How the underscored paths of modules end that read the text, and the encoder's hidden state."""
_ORDER: tuple[Algorithm, ...] = (
    *("full", "norm", "ia3", "oft", "glora", "bias"),
    *("loha", "lokr", "dora", "locon", "lora"),
)
"""An adapter is named after the most particular of its modules."""
_FOREIGN = {
    "lora_unet_double_blocks_": "a LoRA for Flux",
    "transformer.": "an adapter for a transformer model such as Flux or Stable Diffusion 3",
    "lora_transformer_": "an adapter for a transformer model such as Flux or Stable Diffusion 3",
    "model.diffusion_model.": "a whole checkpoint",
    "first_stage_model.": "a whole checkpoint",
    "control_model.": "a ControlNet",
    "emb_params": "a textual inversion",
    "clip_l": "a textual inversion",
}
"""How names begin in files that are no adapter for Stable Diffusion → what they are."""
_HINT = "Choose a LoRA for Stable Diffusion in .safetensors form."


@dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """A file's modules, with the names that belong to none."""

    path: Path
    layout: Layout
    modules: tuple[AdapterModule, ...]
    unknown: tuple[str, ...]
    metadata: Mapping[str, str]


def read_adapter(path: Path) -> AdapterFile:
    """Read which modules a file changes, from its header alone.

    Raises:
        CorruptModel: it is no safetensors file, or holds no adapter for Stable Diffusion.
    """
    header = read_header(path)
    layouts: Counter[Layout] = Counter()
    grouped: dict[tuple[Part, str], dict[str, TensorInfo]] = {}
    unknown: list[str] = []
    for name, tensor in header.tensors.items():
        read = read_name(name)
        if read is None:
            unknown.append(name)
            continue
        layouts[read.layout] += 1
        roles = grouped.setdefault((read.part, read.path), {})
        if read.role in roles:
            raise CorruptModel(f"{path.name} holds the {read.role!r} factor of {read.path[:100]} twice.", _HINT)
        roles[read.role] = tensor
    foreign = _foreign(header.tensors)
    if foreign or not grouped:
        nothing = "holds no LoRA that is known here" if header.tensors else "is empty: it holds no tensors"
        raise CorruptModel(f"{path.name} {foreign or nothing}.", _HINT)
    return AdapterFile(
        path=path,
        layout=layouts.most_common(1)[0][0],
        modules=tuple(_module(part, name, tensors) for (part, name), tensors in grouped.items()),
        unknown=tuple(unknown),
        metadata=header.metadata,
    )


def describe(file: AdapterFile, adapter_id: str) -> Adapter:
    """Everything that can be said of a file without reading its weights."""
    metadata = file.metadata
    alphas = alphas_of(file)
    families, stated = families_of(file), texts.stated_family(metadata)
    contradiction = f"Its metadata say {titles(stated)}, its weights are shaped for {titles(families)}."
    return Adapter(
        id=adapter_id,
        title=texts.stated_title(metadata) or adapter_id,
        file_name=file.path.name,
        size_bytes=file.path.stat().st_size,
        layout=file.layout,
        algorithm=next(kind for kind in _ORDER if any(module.algorithm == kind for module in file.modules)),
        parts=tuple(part for part in PARTS if any(module.part == part for module in file.modules)),
        family=_only(families) or _only(families & stated),
        ranks=tuple(sorted({module.rank for module in file.modules if module.rank})),
        alphas=tuple(sorted({alpha for alpha in alphas.values() if alpha is not None})),
        module_count=len(file.modules),
        trigger_words=texts.trigger_words(metadata),
        metadata=texts.shown(metadata),
        base_model=texts.stated_base_model(metadata),
        prediction_type=texts.stated_prediction_type(metadata),
        notes=() if stated <= families else (contradiction,),
    )


def families_of(file: AdapterFile) -> frozenset[FamilyId]:
    """The families that names and shapes leave open; all of them for a miniature, whose widths are its own."""
    return _ANY_FAMILY.intersection(*map(_families_of_module, file.modules)) or _ANY_FAMILY


def text_widths(modules: Iterable[AdapterModule]) -> frozenset[int]:
    """How wide the text is that the adapted modules of the UNet read."""
    return frozenset(width for module in modules if module.part == "unet" and (width := _width(module, _READ_TEXT)))


def alphas_of(file: AdapterFile) -> dict[tuple[Part, str], float | None]:
    """Alpha of every module by part and path: its own tensor, else the file's PEFT settings, else None."""
    settings = {part: texts.peft_settings(file.metadata, part) for part in PARTS}
    alphas: dict[tuple[Part, str], float | None] = {}
    with TensorReader(file.path) as reader:
        for module in file.modules:
            own = module.tensors.get("alpha")
            stated = settings[module.part].alpha_of(module.path, module.rank or 1)
            alphas[module.part, module.path] = stated if own is None else reader.scalar(own)
    return alphas


def _module(part: Part, path: str, tensors: Mapping[str, TensorInfo]) -> AdapterModule:
    down = tensors.get("down")
    is_conv = "mid" in tensors or (down is not None and math.prod(down.shape[2:]) > 1)
    return AdapterModule(
        part=part, path=path, algorithm=algorithm_of(frozenset(tensors), is_conv=is_conv), tensors=tensors
    )


def _families_of_module(module: AdapterModule) -> frozenset[FamilyId]:
    if module.part == "text_encoder_2":
        return frozenset({"sdxl"})
    if module.part == "text_encoder":
        return _FAMILIES_BY_HIDDEN_WIDTH.get(_width(module, _READ_HIDDEN), _ANY_FAMILY)
    if re.search(r"transformer_blocks[._][1-9]", module.path):  # only SDXL stacks several
        return frozenset({"sdxl"})
    family = FAMILY_BY_WIDTH.get(_width(module, _READ_TEXT))
    return frozenset({family}) if family else _ANY_FAMILY


def _width(module: AdapterModule, ends: tuple[str, ...]) -> int:
    """How many numbers a module reads whose path ends in one of `ends`; 0 for another."""
    is_asked = module.algorithm in SUPPORTED and underscored(module.path).endswith(ends)
    return matrix_shape(module)[1] if is_asked else 0


def _only(families: frozenset[FamilyId]) -> FamilyId | None:
    return next(iter(families)) if len(families) == 1 else None


def titles(families: Iterable[FamilyId]) -> str:
    """Several families as a sentence names them."""
    return " or ".join(FAMILY_TITLES[family] for family in sorted(families))


def _foreign(names: Iterable[str]) -> str:
    """What a file is whose names show that it is no adapter for Stable Diffusion; empty for others."""
    kinds = (kind for name in names for start, kind in _FOREIGN.items() if name.startswith(start))
    return next((f"is {kind}, not a LoRA for Stable Diffusion" for kind in kinds), "")
