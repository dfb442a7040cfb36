"""The shapes of the full-size families, and checkpoints of those shapes with random weights.

`families/` holds one diffusers folder per family without weights: what a single-file checkpoint leaves out, and what a
stand-in is built from. Speed and memory do not depend on what weights know.
"""

import gzip
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTokenizer, PreTrainedModel

from engines.parts import class_named
from studio.domain.errors import DownloadFailed

FAMILIES_FOLDER = Path(__file__).with_name("families")
POCKET_TOKENIZER = Path(__file__).with_name("pocket") / "weights" / "pocket-sd15" / "tokenizer"
TOKENIZER_HUB_ID = "openai/clip-vit-large-patch14"
MAX_SHARD = "5GB"
TEXT_LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"
_MERGES = 48_894
"""CLIP's tokenizer: 256 bytes, the same at the end of a word, these merges, start and end: 49 408 tokens."""


def family_folder(family: str) -> Path:
    """The diffusers folder of a family that has everything but weights and tokenizers."""
    return FAMILIES_FOLDER / family


def family_tokenizers(family: str, offline: bool = False) -> dict[str, CLIPTokenizer]:
    """The tokenizers of a family by their names in its pipeline. SD 1.5's pads with the end token, as OpenAI's encoder
    was used; OpenCLIP's pads with token 0.

    Raises:
        DownloadFailed: CLIP's words are neither on this machine nor to be fetched.
    """
    tokenizers = {}
    for name in _tokenizer_names(family):
        encoder = family_folder(family) / name.replace("tokenizer", "text_encoder") / "config.json"
        tokenizer = clip_tokenizer(offline)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(json.loads(encoder.read_text())["pad_token_id"])
        tokenizers[name] = tokenizer
    return tokenizers


def clip_tokenizer(offline: bool = False) -> CLIPTokenizer:
    """CLIP's own tokenizer: from the word list that open_clip brings along, else from the hub.

    Raises:
        DownloadFailed: see `family_tokenizers`.
    """
    package = importlib.util.find_spec("open_clip")
    if package is not None and package.origin is not None:
        return _from_word_list(Path(package.origin).with_name("bpe_simple_vocab_16e6.txt.gz"))
    try:
        # Not `from_pretrained`: where files are missing it gives a tokenizer that knows no word.
        words, merges = (
            hf_hub_download(TOKENIZER_HUB_ID, name, local_files_only=offline) for name in ("vocab.json", "merges.txt")
        )
        return CLIPTokenizer(words, merges, model_max_length=TEXT_LENGTH)
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise DownloadFailed(
            "A single-file checkpoint needs CLIP's word list, which is not on this machine and could not be fetched.",
            "Install it with `pip install open-clip-torch`, or go online once.",
        ) from error


def build_random(
    family: str,
    folder: Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float16,
    on_part: Callable[[str], None] = lambda part: None,
) -> None:
    """Write a full-size checkpoint of `family` with random weights as a diffusers folder; an old one is replaced."""
    shapes = family_folder(family)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(shapes, part)
    for name, tokenizer in _stand_in_tokenizers(family).items():
        tokenizer.save_pretrained(part / name)
    for config in sorted(shapes.glob("*/config.json")):
        on_part(config.parent.name)
        module = _random_module(json.loads(config.read_text(encoding="utf-8")), seed, dtype)
        module.save_pretrained(part / config.parent.name, max_shard_size=MAX_SHARD)
        del module  # SDXL's parts need not all be in memory at once
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _stand_in_tokenizers(family: str) -> dict[str, CLIPTokenizer]:
    try:
        return family_tokenizers(family, offline=True)
    except DownloadFailed:  # what random weights make of words is all one
        return {name: CLIPTokenizer.from_pretrained(POCKET_TOKENIZER) for name in _tokenizer_names(family)}


def _tokenizer_names(family: str) -> list[str]:
    index = json.loads((family_folder(family) / "model_index.json").read_text(encoding="utf-8"))
    return [key for key in index if key.startswith("tokenizer")]


def _random_module(config: dict[str, Any], seed: int, dtype: torch.dtype) -> Any:
    name = config.get("_class_name") or config["architectures"][0]
    with torch.device("meta"):
        module_class = class_named(name)
        is_text = issubclass(module_class, PreTrainedModel)
        module = module_class(CLIPTextConfig(**config)) if is_text else module_class.from_config(config)
    module = module.to(dtype).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            _fill(key, parameter, generator)
    for owner in module.modules():
        if "position_ids" in owner._buffers:  # not saved with the weights, so it has to be made anew
            owner.position_ids = torch.arange(owner.position_ids.shape[-1]).expand(1, -1)
    return module.eval()


def _fill(name: str, parameter: Tensor, generator: torch.Generator) -> None:
    if parameter.ndim < 2:
        parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        return
    fan_in = parameter[0].numel()
    parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)


def _from_word_list(path: Path) -> CLIPTokenizer:
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : _MERGES + 1]
    letters = _letters()
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(line.split()) for line in lines),
        START,
        END,
    ]
    with tempfile.TemporaryDirectory() as folder:
        words, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        words.write_text(json.dumps({token: index for index, token in enumerate(tokens)}), encoding="utf-8")
        merges.write_text("#version: 0.2\n" + "\n".join(lines) + "\n", encoding="utf-8")
        return CLIPTokenizer(str(words), str(merges), model_max_length=TEXT_LENGTH)


def _letters() -> list[str]:
    """A printable letter for every byte, in CLIP's order: bytes that print as they are first, the others from 256."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*(chr(byte) for byte in printable), *(chr(256 + index) for index in range(len(others)))]
