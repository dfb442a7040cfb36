"""Whether an adapter fits a checkpoint: decided, and said in words, before anything is drawn."""

import math
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lora_registry.factors import MAGNITUDES, SUPPORTED, AdapterModule, Shape, fits, magnitude_shape, matrix_shape
from lora_registry.formats import AdapterFile, describe, families_of, read_adapter, text_widths, titles
from lora_registry.modules import spellings, underscored
from lora_registry.tensor_data import FLOATS, TensorReader
from studio.domain.adapter import FAMILY_TITLES, Adapter, AdapterTarget, Algorithm, Part, Verdict
from studio.domain.errors import CorruptModel, Incompatible, StudioError

_KINDS: Mapping[Algorithm, str] = {
    "full": "whole weight differences",
    "norm": "changes of normalisation layers",
    "ia3": "IA³ scales",
    "oft": "orthogonal rotations (OFT)",
    "glora": "GLoRA factors",
    "bias": "LoRA factors with a bias",
}
"""What cannot be computed, by name."""
_CHOOSE = "Choose a LoRA, LoCon, DoRA, LoHa or LoKr file."
_FETCH = "Fetch or export the file again."


@dataclass(frozen=True, kw_only=True)
class FittedModule:
    """A module of an adapter, and the weight of the checkpoint that it changes."""

    module: AdapterModule
    path: str
    weight_shape: Shape


def judge(path: Path, target: AdapterTarget) -> Verdict:
    """Decide whether the adapter at `path` can be used with `target`; reads every tensor once."""
    try:
        file = read_adapter(path)
        fit(file, target)
        is_zero = check_numbers(file)
    except StudioError as error:
        return Verdict(message=error.message, hint=error.hint)
    return Verdict(notes=_notes(describe(file, path.stem), target, is_zero=is_zero))


def check_supported(file: AdapterFile) -> None:
    """Refuse, whatever the checkpoint, what cannot be computed.

    Raises:
        Incompatible: an algorithm or a number type that is not supported, by name.
        CorruptModel: factors that are missing or do not fit each other, tensors of no known kind.
    """
    name = file.path.name
    kinds = sorted({_KINDS[module.algorithm] for module in file.modules if module.algorithm not in SUPPORTED})
    if kinds:
        raise Incompatible(f"{name} holds {' and '.join(kinds)}, which are not supported.", _CHOOSE)
    if file.unknown:
        raise CorruptModel(
            f"{name} holds {_counted(file.unknown, 'tensor')} of no known kind, "
            f"the first is {file.unknown[0][:100]!r}.",
            _CHOOSE,
        )
    for module in file.modules:
        for role, tensor in module.tensors.items():
            if tensor.dtype not in FLOATS and role != "alpha":
                raise Incompatible(
                    f"{name} keeps its weights as {tensor.dtype}; {', '.join(FLOATS)} are read.",
                    "Choose the float16, bfloat16 or float32 version of it.",
                )
        matrix_shape(module)


def fit(file: AdapterFile, target: AdapterTarget) -> tuple[FittedModule, ...]:
    """Find the weight of `target` that each module changes.

    Raises:
        Incompatible: another family or size, a module that is not there, a shape that does not fit.
        CorruptModel: as `check_supported` says, or one weight is changed twice.
    """
    check_supported(file)
    _check_family(file, target)
    tables = {part: spellings(part, paths) for part, paths in target.modules.items()}
    missing = [m for m in file.modules if underscored(m.path) not in tables.get(m.part, {})]
    if missing:
        raise Incompatible(
            f"{file.path.name} changes {_counted(missing, 'module')} that {target.title} does not have, "
            f"the first is {missing[0].shown_path} of the {_spoken(missing[0].part)}.",
            "Choose the model that it was made for.",
        )
    fitted: dict[tuple[Part, str], FittedModule] = {}
    for module in file.modules:
        path = tables[module.part][underscored(module.path)]
        if (module.part, path) in fitted:
            raise CorruptModel(f"{file.path.name} changes {path} twice, under two spellings.", _FETCH)
        fitted[module.part, path] = _fit_module(file, module, path, target)
    return tuple(fitted.values())


def check_numbers(file: AdapterFile) -> bool:
    """Whether all that the file would add is zero.

    Raises:
        CorruptModel: a number is not finite, or an alpha is not one number.
    """
    is_zero = True
    with TensorReader(file.path) as reader:
        for module in file.modules:
            is_zero = _check_module(file, module, reader) and is_zero
    return is_zero


def _check_module(file: AdapterFile, module: AdapterModule, reader: TensorReader) -> bool:
    """Whether a product with a factor of zero is all that the module adds."""
    has_zero_factor = False
    for role, tensor in module.tensors.items():
        numbers = np.array([reader.scalar(tensor)]) if role == "alpha" else reader.numbers(tensor)
        if not np.isfinite(numbers).all():
            raise CorruptModel(
                f"{file.path.name} is damaged: {module.shown_path} holds numbers that are not finite (NaN, infinity).",
                "Fetch the file again; if you trained it, lower the learning rate and train again.",
            )
        has_zero_factor = has_zero_factor or (role not in MAGNITUDES and not numbers.any())
    return has_zero_factor and not any(role in module.tensors for role in MAGNITUDES)


def _check_family(file: AdapterFile, target: AdapterTarget) -> None:
    families = families_of(file)
    if target.family not in families:
        made_for, own_title = titles(families), FAMILY_TITLES[target.family]
        raise Incompatible(
            f"{file.path.name} is made for {made_for}; {target.title} is an {own_title} model.",
            f"Choose a {made_for} model, or an adapter for {own_title}.",
        )
    widths, own = text_widths(file.modules), _target_widths(target)
    if widths and own and not widths & own:
        raise Incompatible(
            f"{file.path.name} is made for models that read text {_or(widths)} numbers wide; "
            f"{target.title} reads {_or(own)}.",
            "Choose the model that it was made for.",
        )


def _fit_module(file: AdapterFile, module: AdapterModule, path: str, target: AdapterTarget) -> FittedModule:
    weight_shape = target.modules[module.part][path]
    matrix = matrix_shape(module)
    if not fits(matrix, weight_shape):
        rows, columns = weight_shape[0], math.prod(weight_shape[1:])
        raise Incompatible(
            f"{file.path.name} does not fit {target.title}: it changes {path} as {matrix[0]}×{matrix[1]} numbers, "
            f"which there are {rows}×{columns}.",
            "Choose the model that it was made for.",
        )
    magnitude_shape(module, weight_shape)
    return FittedModule(module=module, path=path, weight_shape=weight_shape)


def _target_widths(target: AdapterTarget) -> frozenset[int]:
    unet = target.modules.get("unet", {})
    return frozenset(shape[1] for path, shape in unet.items() if path.endswith(("attn2.to_k", "attn2.to_v")))


def _notes(adapter: Adapter, target: AdapterTarget, *, is_zero: bool) -> tuple[str, ...]:
    notes = list(adapter.notes)
    if adapter.family not in (None, target.family):
        notes.append(f"It fits, but its metadata say that it is made for {FAMILY_TITLES[adapter.family]}.")
    if is_zero:
        notes.append("All its factors multiply to zero: it changes nothing.")
    if "unet" not in adapter.parts:
        notes.append("It changes how the prompt is read (the text encoder), not how the picture is drawn.")
    if not adapter.alphas and adapter.ranks:
        notes.append("It states no alpha; alpha = rank is taken, as diffusers does.")
    if adapter.prediction_type not in (None, target.prediction_type):
        notes.append(
            f"It was trained for {adapter.prediction_type}, {target.title} predicts {target.prediction_type}; "
            "pictures may come out washed out or noisy."
        )
    return tuple(notes)


def _counted(things: Sized, noun: str) -> str:
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"


def _or(widths: frozenset[int]) -> str:
    return " or ".join(map(str, sorted(widths)))


def _spoken(part: Part) -> str:
    return {"unet": "UNet", "text_encoder": "text encoder", "text_encoder_2": "second text encoder"}[part]
