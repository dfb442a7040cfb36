"""Write an accelerator of full size with random numbers, to time few steps: `python bench/random_accelerator.py sd15
data/accelerators/lcm-sd15.safetensors`. What a stand-in draws with it means nothing; what it takes does."""

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import engines  # noqa: E402, F401  (before diffusers: see engines/torchvision_names.py)

# isort: split
import torch  # noqa: E402
from diffusers import UNet2DConditionModel  # noqa: E402

from engines.full_size import family_folder  # noqa: E402
from engines.training.lora import reached  # noqa: E402
from lora_registry.export import write_adapter  # noqa: E402
from lora_registry.weights import LowRank  # noqa: E402

SCALE = 1e-3


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=("sd15", "sd21", "sdxl"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--rank", type=int, default=64, help="that of LCM adapters")
    options = parser.parse_args()
    config: Any = UNet2DConditionModel.load_config(family_folder(options.family) / "unet")
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(config)
    generator = torch.Generator().manual_seed(0)
    changes = {}
    for path in reached(unet, "all"):
        weight: Any = unet.get_submodule(path).weight
        rank = min(options.rank, len(weight), int(weight.shape[1]))
        down = torch.randn(rank, *weight.shape[1:], generator=generator) * SCALE
        up = torch.randn(len(weight), rank, *(1 for _ in weight.shape[2:]), generator=generator) * SCALE
        changes[path] = LowRank(down=down, up=up, alpha=float(rank))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_adapter(options.out, {"unet": changes}, options.family)
    print(f"{len(changes)} layers, {options.out.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
