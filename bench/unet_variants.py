"""A UNet's step on this machine in the ways there are to make it faster, and after how many pictures each pays.

`python bench/unet_variants.py sd15 --size 512`, on a stand-in with random weights; `pocket-sd15` measures the miniature
as the studio runs it. `torch.compile` has to be paid for once per process and size; int8 is dynamic quantisation, with
weights per channel and activations per tensor, by oneDNN.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import engines  # noqa: E402, F401  (before diffusers: see engines/torchvision_names.py)

# isort: split
import numpy as np  # noqa: E402
import torch  # noqa: E402
from diffusers import UNet2DConditionModel  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from engines.attention import attending  # noqa: E402
from engines.devices import choose_device, cpu_threads  # noqa: E402
from engines.memory import reuse_freed_blocks  # noqa: E402
from studio.settings import Settings  # noqa: E402

STEPS_OF_A_PICTURE = 30
MIN_WIDTH = 320
"""Linear layers that see fewer values have nothing to gain from int8."""
Variant = Callable[[Any], Callable[..., Any]]


def main() -> None:
    """Measure one variant after the other and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=("sd15", "sd21", "pocket-sd15"))
    parser.add_argument("--size", type=int, default=512, help="px")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options = parser.parse_args()
    is_pocket = options.family.startswith("pocket")
    folder = Settings.from_environment().models_dir / f"random-{options.family}"
    if is_pocket:
        folder = ROOT / "engines/pocket/weights" / options.family
    dtype = torch.float32 if is_pocket else choose_device().dtype
    reuse_freed_blocks()
    print(f"{options.family}, {options.size} px, {dtype}, {os.cpu_count()} cores\n")
    print("| | first step s | median step s | ratio | error | pictures until it pays | n |\n" + "|---" * 7 + "|")
    with torch.inference_mode(), cpu_threads(1 if is_pocket else None):
        rows = list(measured(folder, dtype, options))
    for row in rows:
        print(row)


def measured(folder: Path, dtype: torch.dtype, options: argparse.Namespace) -> Iterator[str]:
    """Lines of the table; errors and ratios are those to the first variant."""
    truth, base_first, base = torch.empty(0), 0.0, 0.0
    for name in options.variants:
        torch.compiler.reset()
        unet: Any = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", dtype=dtype)
        unet.eval().to(memory_format=torch.channels_last)
        inputs = inputs_of(unet, options.size, dtype)
        with attending(unet, "chunked" if name == "attention in pieces" else "fused"):
            predict = VARIANTS[name](unet)
            first, _ = timed(predict, inputs)
            times, outputs = zip(*(timed(predict, inputs) for _ in range(options.repeats)), strict=True)
        step, predicted = float(np.median(times)), outputs[-1].float()
        if not len(truth):
            truth, base_first, base = predicted, first, step
        error = float((predicted - truth).norm() / truth.norm())
        saved = STEPS_OF_A_PICTURE * (base - step)
        pays = "never" if saved <= 0 else f"{max(0.0, first - base_first) / saved:.1f}"
        yield f"| {name} | {first:.1f} | {step:.3f} | {step / base:.3f} | {error:.4f} | {pays} | {options.repeats} |"


def inputs_of(unet: Any, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """A step with guidance: noisy latents `(2, 4, h, w)`, the timestep and texts `(2, 77, width)`."""
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 4, size // 8, size // 8, generator=generator).to(dtype)
    told = torch.randn(2, 77, unet.config.cross_attention_dim, generator=generator).to(dtype)
    return noisy.contiguous(memory_format=torch.channels_last), torch.tensor(500), told


def timed(predict: Callable[..., Any], inputs: tuple[Tensor, ...]) -> tuple[float, Tensor]:
    started = time.perf_counter()
    predicted = predict(*inputs).sample
    return time.perf_counter() - started, predicted


class Int8Linear(nn.Module):
    """A linear layer on int8 products, for inputs of any number format."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        whole: Any = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None)
        whole.load_state_dict(linear.state_dict())
        whole.qconfig = torch.ao.quantization.per_channel_dynamic_qconfig
        self.inner = torch.ao.nn.quantized.dynamic.Linear.from_float(whole)

    def forward(self, values: Tensor) -> Tensor:
        """`(…, in)` to `(…, out)`."""
        return self.inner(values.float()).to(values.dtype)


def in_int8(unet: Any) -> Callable[..., Any]:
    torch.backends.quantized.engine = "onednn"
    for module in list(unet.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and child.in_features >= MIN_WIDTH and "time" not in name:
                setattr(module, name, Int8Linear(child))
    return unet


VARIANTS: dict[str, Variant] = {
    "torch's attention": lambda unet: unet,
    "attention in pieces": lambda unet: unet,
    "torch.compile": torch.compile,
    "linear layers in int8": in_int8,
}

if __name__ == "__main__":
    main()
