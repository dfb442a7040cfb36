"""Inputs that nobody means: valid ones with something changed, and what their grammars are made of in any order."""

import base64
import io
import json
import random
import struct
from collections.abc import Sequence
from typing import Any

from PIL import Image

from tests.studio.captions.scenes import row

LONGEST = 10_000
"""Characters of a prompt."""
WORDS = (
    "a red circle", " ", "  ", "\n", "\t", ",", ", ", ":", "::", ".", "1", "1.3", "-2", "9e99", "nan", "inf", "9" * 30,
    "(", ")", "((", "))", "[", "]", "{", "}", "|", "\\", "\\(", "<", ">", "<lora:", "<lora:x:0.8>",
    "<lora:../../x:1e9>", "te=", "BREAK", " BREAK ", "AND", "__", "__x__", "__a/b__", "{a|b}", "{3::a|b}", "(a:1.3)",
    "[a:b:0.5]", "{prompt}", "\0",
    "\ud800", "\u202e", "青い丸", "🟥", "é", "%s", "%(x)s", "'", '"', ";", "--", "</script>", "../", "~", "#", "=1+1",
)  # fmt: skip
KEYS = (
    "Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Size-1", "Model", "Model hash", "Clip skip",
    "Negative prompt", "Template", "Original prompt", "Accelerator", "Decoder", "VAE Decoder", "Denoising strength",
    "Mask blur", "Lora hashes", "Version", "Hires upscale", "RNG", "Prompt", "x" * 70,
)  # fmt: skip
SETTINGS = (
    "25", "-1", "0", "1e9", "99999999999999999999999", "128x128", "0x0", "1x", "Euler a", "DPM++ 2M", "Karras", "nan",
    "", "pocket-sd15", "../../x", '"a, b"', '"\\ud800"', '"unclosed', '"\\"', "half", "TAESD", "True", "null", "٣", "²",
)  # fmt: skip
ODD = (
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    8,
    2**31,
    2**64,
    -(10**40),
    0.5,
    float("nan"),
    float("inf"),
    "",
    "4",
    [],
    {},
    [[]],
)


def prompt(rng: random.Random) -> str:
    """Up to 10 000 characters of prompt syntax; sometimes one piece of it for as long as a prompt may be."""
    if rng.random() < 0.02:
        return ("".join(rng.choices(WORDS, k=rng.randint(1, 3))) * LONGEST)[: rng.randint(1, LONGEST)]
    return "".join(rng.choices(WORDS, k=rng.randint(1, 40)))


def changed(rng: random.Random, data: bytes) -> bytes:
    """`data` with some of it replaced, left out, put in, repeated or cut off."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(made) + 1)
        match rng.randrange(5):
            case 0:
                made[place : place + 1] = rng.randbytes(1)
            case 1:
                del made[place : place + rng.randint(1, 20)]
            case 2:
                made[place:place] = rng.choice((b"\0", b"\xff\xfe", b'"', b"{", b"]", b"\n", b"\\u", b"9" * 40, b","))
            case 3:
                made[place:place] = made[place : place + rng.randint(1, 60)]
            case _:
                del made[place:]
    return bytes(made)


def infotext(rng: random.Random) -> str:
    """The text of a picture, as any program may have written it."""
    pairs = [f"{rng.choice(KEYS)}: {rng.choice(SETTINGS)}" for _ in range(rng.randint(0, 12))]
    negative = f"\nNegative prompt: {prompt(rng)[:500]}" if rng.random() < 0.4 else ""
    text = f"{prompt(rng)}{negative}\n{rng.choice((', ', ',', ' ,', chr(10))).join(pairs)}"
    if rng.random() < 0.3:
        text = changed(rng, text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    return text


def caption_lines(rng: random.Random) -> bytes:
    """Some lines of a shard, whole and not."""
    lines: list[bytes] = []
    for _ in range(rng.randint(1, 4)):
        line = row(f"{rng.randrange(100)}", caption=prompt(rng)[:300].replace("\0", "")).line()
        if rng.random() < 0.3:
            values: dict[str, Any] = json.loads(line)
            values[rng.choice(list(values))] = rng.choice(ODD)
            line = json.dumps(values).encode() + b"\n"
        lines.append(changed(rng, line) if rng.random() < 0.6 else line)
    return b"".join(lines)


def safetensors(rng: random.Random) -> bytes:
    """A small file of weights whose header need not be true."""
    names = ("lora_unet_mid_block_proj_in", "unet.mid_block.proj", "transformer.blocks.0", "x", "", "é", "__metadata__")
    ends = (".lora_down.weight", ".lora_up.weight", ".alpha", ".lora_A.weight", ".hada_w1_a", ".lokr_w1", ".dora_scale")
    header: dict[str, Any] = {}
    place = 0
    for _ in range(rng.randint(0, 6)):
        shape = [rng.randint(0, 4) for _ in range(rng.randint(0, 4))]
        size = rng.choice((2, 4)) * _product(shape)
        dtype = "F32" if rng.random() < 0.5 else rng.choice(("F16", "BF16", "F8_E4M3", "I8", "", "X", "BOOL"))
        header[rng.choice(names) + rng.choice(ends)] = {
            "dtype": dtype, "shape": shape, "data_offsets": [place, place + size],
        }  # fmt: skip
        place += size
    if rng.random() < 0.4:
        texts = (rng.choice(("ss_network_module", "ss_tag_frequency", "modelspec.title", "x")), prompt(rng)[:200])
        header["__metadata__"] = dict([texts]) if rng.random() < 0.8 else rng.choice(ODD)
    if header and rng.random() < 0.4:
        entry = header[rng.choice(list(header))]
        if isinstance(entry, dict) and entry:
            entry[rng.choice(list(entry))] = rng.choice(
                (*ODD, [0, 2**63], [-1, 1], [1e300, 1], ["a", "b"], [2**40] * 9)
            )
    text = json.dumps(header).encode()
    length = len(text) if rng.random() < 0.9 else rng.choice((0, 1, 2**31, 2**63, 2**64 - 1, len(text) + 1))
    made = struct.pack("<Q", length) + text + bytes(place)
    return changed(rng, made) if rng.random() < 0.4 else made


def _product(shape: Sequence[int]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def picture_in_base64() -> str:
    """Of 8 × 8 pixels."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


PICTURE = picture_in_base64()


def value(rng: random.Random, depth: int = 0) -> Any:
    """A value that JSON can hold, and some that only Python's can."""
    match rng.randrange(8 if depth < 3 else 5):
        case 0 | 1:
            return rng.choice(ODD)
        case 2:
            return prompt(rng)[:400]
        case 3:
            return rng.choice(
                (PICTURE, f"data:image/png;base64,{PICTURE}", PICTURE[:40], "http://127.0.0.1/x", "0" * 64)
            )
        case 4:
            return rng.choice(
                (rng.randrange(-5, 3000), rng.uniform(-1, 40), "256x256", "512x512", "auto", "png", "b64_json")
            )
        case 5:
            return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
        case _:
            names = (
                "prompt",
                "name",
                "checkpoint",
                "url",
                "image",
                "args",
                "at",
                "adapters",
                "values",
                "field",
                "type",
            )
            return {rng.choice(names): value(rng, depth + 1) for _ in range(rng.randrange(4))}
