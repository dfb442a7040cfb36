"""Tensor names of every layout, taken apart: which part of the model, which module as written, which factor of it.

kohya      lora_unet_down_blocks_1_attentions_0_proj_in.lora_down.weight
diffusers  unet.down_blocks.1.attentions.0.proj_in.lora.down.weight
           text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.down.weight
           unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight   (until 2023)
peft       base_model.model.unet.down_blocks.1.attentions.0.proj_in.lora_A.weight
"""

import re
from dataclasses import dataclass

from studio.domain.adapter import Algorithm, Layout, Part

_KOHYA_PARTS: dict[str, Part] = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
_DOTTED_PARTS: dict[str, Part] = {
    "unet.": "unet",
    "diffusion_model.": "unet",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
}
_BARE_PARTS: dict[str, Part] = {
    **dict[str, Part].fromkeys(("down_blocks", "mid_block", "up_blocks", "conv_in", "conv_out"), "unet"),
    **dict[str, Part].fromkeys(("input_blocks", "middle_block", "output_blocks"), "unet"),
    **dict[str, Part].fromkeys(("time_embedding", "add_embedding", "time_embed", "label_emb"), "unet"),
    **dict[str, Part].fromkeys(("text_model", "encoder"), "text_encoder"),
}
"""First words of paths that stand without a part, as PEFT writes them for a model that was trained alone."""

_SHORT = {"lora_down.weight": "down", "lora_up.weight": "up", "lora_mid.weight": "mid", "ia3_l": "weight"}
_FULL = ("diff", "diff_b")
_NORM = ("w_norm", "b_norm")
_IA3 = ("weight", "on_input")
_OFT = ("oft_blocks", "oft_diag", "oft_r", "oft_R.weight", "rescale")
_GLORA = ("a1.weight", "a2.weight", "b1.weight", "b2.weight", "bm.weight")
_HADA = tuple(f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2"))
_LOKR = tuple(f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2"))
_ENDS = ("alpha", "dora_scale", *_FULL, *_NORM, *_IA3, *_OFT, *_GLORA, *_HADA, *_LOKR)
_ROLES = {**_SHORT, **dict(zip(_ENDS, _ENDS, strict=True))}
"""What follows the module in kohya and LyCORIS files → its role."""

_DOTTED = re.compile(
    r"""(?P<path>.+?)
    (?: \.lora_(?P<peft>[AB])(?:\.default)?\.weight
      | \.lora_B(?:\.default)?\.(?P<bias>bias)
      | \.(?P<magnitude>lora_magnitude_vector)(?:\.default)?(?:\.weight)?
      | (?:\.lora|\.lora_linear_layer|_lora)\.(?P<direction>down|up)\.weight
      | \.(?P<lycoris>alpha|dora_scale|hada_\w+|lokr_\w+|ia3_l|oft_r|oft_R\.weight) )""",
    re.VERBOSE,
)
_PROCESSOR = re.compile(r"(?:\.processor)?\.to_(?P<name>[qkv]|out)$")
_TEXT_PROJECTIONS = {"q": ".q_proj", "k": ".k_proj", "v": ".v_proj", "out": ".out_proj"}

_TELLING: tuple[tuple[Algorithm, frozenset[str]], ...] = (
    ("full", frozenset(_FULL)),
    ("norm", frozenset(_NORM)),
    ("ia3", frozenset(_IA3)),
    ("oft", frozenset(_OFT)),
    ("glora", frozenset(_GLORA)),
    ("bias", frozenset({"bias"})),
    ("loha", frozenset(_HADA)),
    ("lokr", frozenset(_LOKR)),
    ("dora", frozenset({"dora_scale", "magnitude"})),
)
"""Which roles give an algorithm away, the decisive ones first."""


@dataclass(frozen=True, kw_only=True)
class TensorName:
    """A tensor's name, taken apart. `path` is the module as the file writes it, with dots or underscores."""

    layout: Layout
    part: Part
    path: str
    role: str


def read_name(name: str) -> TensorName | None:
    """Take a tensor's name apart; None for one that no layout for Stable Diffusion has."""
    for prefix, part in _KOHYA_PARTS.items():
        if name.startswith(prefix):
            path, _, end = name.removeprefix(prefix).partition(".")
            role = _ROLES.get(end)
            return TensorName(layout="kohya", part=part, path=path, role=role) if role and path else None
    return _read_dotted(name.removeprefix("base_model.model."))


def algorithm_of(roles: frozenset[str], *, is_conv: bool) -> Algorithm:
    """What a module with these roles is. `is_conv`: its factors have a kernel larger than 1×1."""
    for algorithm, telling in _TELLING:
        if roles & telling:
            return algorithm
    return "locon" if is_conv else "lora"


def _read_dotted(name: str) -> TensorName | None:
    found = _DOTTED.fullmatch(name)
    if found is None:
        return None
    part, path = _split_part(found["path"])
    role = _dotted_role(found)
    if part is None or role is None:
        return None
    if found["direction"] and name[found.end("path") :].startswith("_lora."):
        path = _without_processor(part, path)
    return TensorName(layout="diffusers" if found["direction"] else "peft", part=part, path=path, role=role)


def _split_part(path: str) -> tuple[Part | None, str]:
    for prefix, part in _DOTTED_PARTS.items():
        if path.startswith(prefix):
            return part, path.removeprefix(prefix)
    return _BARE_PARTS.get(path.partition(".")[0]), path


def _dotted_role(found: re.Match[str]) -> str | None:
    if found["peft"]:
        return "down" if found["peft"] == "A" else "up"
    if found["bias"] or found["magnitude"]:
        return "bias" if found["bias"] else "magnitude"
    return found["direction"] or _ROLES.get(found["lycoris"])


def _without_processor(part: Part, path: str) -> str:
    """Before PEFT, diffusers hung LoRAs on attention processors, which named projections in their own way."""
    found = _PROCESSOR.search(path)
    if found is None:
        return path
    if part == "unet":
        return f"{path[: found.start()]}.to_{found['name']}{'.0' if found['name'] == 'out' else ''}"
    return path[: found.start()] + _TEXT_PROJECTIONS[found["name"]]
