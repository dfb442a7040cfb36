"""Adapters written to files, in the layouts that other programs open."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from lora_registry.files import write_whole
from lora_registry.modules import underscored
from lora_registry.weights import LowRank
from studio.domain.adapter import FamilyId, Layout, Part

_KOHYA_PARTS: Mapping[Part, str] = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}


def write_adapter(
    path: Path,
    changes: Mapping[Part, Mapping[str, LowRank]],
    family: FamilyId,
    layout: Layout = "kohya",
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write `changes` (by part and diffusers module path) to `path`, whole or not at all.

    kohya files hold each module's alpha. PEFT's, which diffusers writes too, hold none: there `alpha / rank` is worked
    into `up`, which every reader takes for what it is, beside a configuration that says alpha = rank. The lengths of a
    DoRA are `dora_scale` (out, 1, …) in the one and `lora_magnitude_vector` in the other; diffusers (0.42) leaves out
    the first, and then draws a plain LoRA.

    Raises:
        StorageFailed: the disk is full or cannot be written.
        ValueError: another layout.
    """
    tensors: dict[str, Tensor] = {}
    metadata = dict(metadata or {})
    for part, of_part in changes.items():
        named = {_as_others_write(part, module): change for module, change in of_part.items()}
        if layout == "kohya":
            tensors |= dict(_kohya(part, named, family))
        elif layout == "peft":
            tensors |= dict(_peft(part, named))
        else:
            raise ValueError(f"adapters are written as kohya or peft, not as {layout}")
    if layout == "peft":
        metadata["lora_adapter_metadata"] = json.dumps(_peft_settings(changes), sort_keys=True)
    stored = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    if metadata:
        metadata |= _hashes(save(stored))
    write_whole(path, [save(stored, metadata={"format": "pt", **metadata})])


def _hashes(content: bytes) -> dict[str, str]:
    """SHA-256 of the tensors of a file, without its header: as kohya's scripts and as ModelSpec spell it."""
    header = int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(content[8 + header :]).hexdigest()
    return {"sshs_model_hash": digest, "modelspec.hash_sha256": f"0x{digest}"}


def _as_others_write(part: Part, module: str) -> str:
    """A module's path, with the `text_model.` that encoders of transformers lack since 5.6, and programs look for."""
    if part == "unet" or not module.startswith(("encoder.", "encoder_")):
        return module
    return f"text_model{module[len('encoder')]}{module}"


def _kohya(part: Part, changes: Mapping[str, LowRank], family: FamilyId) -> Iterator[tuple[str, Tensor]]:
    prefix = "lora_te" if part == "text_encoder" and family != "sdxl" else _KOHYA_PARTS[part]
    for path, change in changes.items():
        name = f"{prefix}_{underscored(path)}"
        yield f"{name}.lora_down.weight", change.down
        yield f"{name}.lora_up.weight", change.up
        yield f"{name}.alpha", torch.tensor(change.alpha)
        if change.magnitude is not None:
            yield f"{name}.dora_scale", change.magnitude


def _peft(part: Part, changes: Mapping[str, LowRank]) -> Iterator[tuple[str, Tensor]]:
    for path, change in changes.items():
        yield f"{part}.{path}.lora_A.weight", change.down
        yield f"{part}.{path}.lora_B.weight", change.up * (change.alpha / change.rank)
        if change.magnitude is not None:
            # PEFT's own shapes: (out,) of a matrix, (1, out, 1, 1) of a kernel. It writes the name without `.weight`
            # and reads both; for text encoders, transformers (5.23) reads only this one.
            across = change.magnitude.transpose(0, 1)
            yield f"{part}.{path}.lora_magnitude_vector.weight", across if across.ndim > 2 else across.flatten()


def _peft_settings(changes: Mapping[Part, Mapping[str, LowRank]]) -> dict[str, object]:
    settings: dict[str, object] = {}
    for part, of_part in changes.items():
        ranks = {path: change.rank for path, change in of_part.items()}
        usual = max(ranks.values(), default=0)
        smaller = {path: rank for path, rank in ranks.items() if rank != usual}
        settings |= {
            f"{part}.r": usual,
            f"{part}.lora_alpha": usual,
            f"{part}.rank_pattern": smaller,
            f"{part}.alpha_pattern": smaller,
            f"{part}.target_modules": sorted(ranks),
            f"{part}.use_dora": any(change.magnitude is not None for change in of_part.values()),
        }
    return settings
