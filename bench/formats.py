"""What number format and memory format suit this CPU: `python bench/formats.py`.

Products of two square matrices, then steps of the pocket model's UNet (both halves of guidance) and decodings by its
VAE on one thread. All variants take turns; a ratio is the median over turns.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import engines  # noqa: E402, F401  (before diffusers: see engines/torchvision_names.py)

# isort: split
import numpy as np  # noqa: E402
import torch  # noqa: E402
from diffusers import StableDiffusionPipeline  # noqa: E402

FOLDER = ROOT / "engines/pocket/weights/pocket-sd15"
SIDE = 1024
FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TURNS, WARM_UP = 40, 5


def main() -> None:
    """Measure and print Markdown tables."""
    with torch.inference_mode():
        products = {name: torch.ones(SIDE, SIDE, dtype=dtype) for name, dtype in DTYPES.items()}
        report(
            f"product of two {SIDE} × {SIDE} matrices", {name: partial(torch.mm, m, m) for name, m in products.items()}
        )
        torch.set_num_threads(1)
        steps, decodings = {}, {}
        for number, dtype in DTYPES.items():
            for memory, memory_format in FORMATS.items():
                name = f"{number}, {memory}"
                steps[name], decodings[name] = parts(dtype, memory_format)
        report("a step of the UNet", steps)
        report("a decoding by the VAE", decodings)


def report(what: str, variants: dict[str, Callable[[], object]]) -> None:
    """Let `variants` take turns; print medians and ratios to the first."""
    times = {name: [] for name in variants}
    for turn in range(TURNS + WARM_UP):
        for name, call in variants.items():
            started = time.perf_counter()
            call()
            if turn >= WARM_UP:
                times[name].append(time.perf_counter() - started)
    first = np.array(next(iter(times.values())))
    print(f"\n| {what} | median ms | ratio | n |\n|---|---|---|---|")
    for name, values in times.items():
        print(f"| {name} | {1e3 * np.median(values):.1f} | {np.median(np.array(values) / first):.2f} | {TURNS} |")


def parts(dtype: torch.dtype, memory_format: torch.memory_format) -> tuple[Callable[[], object], Callable[[], object]]:
    """A step of the UNet and a decoding by the VAE, at 128 px."""
    pipeline = StableDiffusionPipeline.from_pretrained(FOLDER, dtype=dtype, safety_checker=None)
    unet, vae = pipeline.unet.to(memory_format=memory_format), pipeline.vae.to(memory_format=memory_format)
    latents = torch.randn(2, 4, 16, 16, dtype=dtype).contiguous(memory_format=memory_format)
    embeds = torch.randn(2, 77, unet.config.cross_attention_dim, dtype=dtype)
    return partial(unet, latents, 500, embeds), partial(vae.decode, latents[:1])


if __name__ == "__main__":
    main()
