"""Module paths in every spelling, looked up: diffusers' and LDM's names for a UNet, with dots or with underscores."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from studio.domain.adapter import Part

_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
}
_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_WORDS = re.compile(
    r"(?<![^_])(down_blocks|mid_block|up_blocks|transformer_blocks|time_emb_proj|time_embedding|add_embedding|conv_shortcut"
    r"|conv_in|conv_out|proj_in|proj_out|to_[qkv]|to_out|linear_[12]|text_model|text_projection|self_attn"
    r"|[qkv]_proj|out_proj)(?![^_])"
)
"""Names in a path that hold underscores themselves."""
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def spellings(part: Part, paths: Iterable[str]) -> dict[str, str]:
    """Every way to write the diffusers `paths` of a part, with underscores for dots → the path."""
    known = frozenset(paths)
    lists = _list_lengths(known)
    table: dict[str, str] = {}
    for path in known:
        for spelling in _unet_spellings(path, lists) if part == "unet" else _text_spellings(path):
            table[underscored(spelling)] = path
    return table


def underscored(path: str) -> str:
    return path.replace(".", "_")


def dotted(path: str) -> str:
    """What `underscored` was made of: diffusers' names hold few words with underscores of their own."""
    kept = _WORDS.sub(lambda word: word[0].replace("_", "-"), path)
    return kept.replace("_", ".").replace("-", "_")


def _text_spellings(path: str) -> tuple[str, ...]:
    # transformers 5.6 dropped `text_model.` from CLIPTextModel, and kept it in CLIPTextModelWithProjection.
    bare = path.removeprefix("text_model.")
    return (path, bare, f"text_model.{bare}")


def _unet_spellings(path: str, lists: Mapping[str, int]) -> tuple[str, ...]:
    ldm = _UNET_ENDS.get(path) or _ldm_middle(path) or _ldm_block(path, lists)
    return (path, ldm) if ldm else (path,)


def _ldm_middle(path: str) -> str | None:
    found = _MIDDLE.fullmatch(path)
    if found is None:
        return None
    kind, index, rest = found.groups()
    # The middle is resnet, attention, resnet.
    place = 1 if kind == "attentions" else 2 * int(index)
    return f"middle_block.{place}.{_RESNET.get(rest, rest)}"


def _ldm_block(path: str, lists: Mapping[str, int]) -> str | None:
    """LDM counts through all blocks: one entry for each resnet, one more for each downsampler; an upsampler is the
    last module of its block's last entry."""
    found = _BLOCK.fullmatch(path)
    if found is None:
        return None
    direction, block, kind, layer, rest = found.groups()
    resnets = lists[f"{direction}_blocks.0.resnets"]
    if direction == "down":
        entry = 1 + int(block) * (resnets + 1)
        if kind == "downsamplers":
            return f"input_blocks.{entry + resnets}.0.op"
        return f"input_blocks.{entry + int(layer)}.{_inside(kind, rest)}"
    entry = int(block) * resnets
    if kind == "upsamplers":
        place = 2 if f"up_blocks.{block}.attentions" in lists else 1
        return f"output_blocks.{entry + resnets - 1}.{place}.conv"
    return f"output_blocks.{entry + int(layer)}.{_inside(kind, rest)}"


def _inside(kind: str, rest: str) -> str:
    return f"1.{rest}" if kind == "attentions" else f"0.{_RESNET.get(rest, rest)}"


def _list_lengths(paths: Iterable[str]) -> Counter[str]:
    """How many modules each list of a block has: "up_blocks.1.resnets" → 3."""
    found = (_BLOCK.fullmatch(path) for path in paths)
    items = {(f"{match[1]}_blocks.{match[2]}.{match[3]}", match[4]) for match in found if match}
    return Counter(name for name, _ in items)
