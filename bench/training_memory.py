"""Memory of a training as it is told before anything is loaded, beside what real steps of the trainer take.

`python bench/training_memory.py pocket-sd15 --batch 4 --rank 32 --reach all --text-rate 1e-3`; a full-size model as
`random-sd15`, once `python -m studio models build-random sd15` has made it. It gives a row of a table: growth is what
the process takes beyond its weights, peak the most that it ever holds, in MB by the kernel's own count. Latents are
noise: memory does not depend on what they show.
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from studio.checkpoints import OwnCheckpoints  # noqa: E402
from studio.domain.catalogue import Catalogue  # noqa: E402
from studio.domain.training import TrainingPlan, parse_training, resolve_training  # noqa: E402
from studio.services import CATALOGUE_PATH, load_pool  # noqa: E402
from studio.settings import Settings  # noqa: E402

STEPS = 2
MB = 2**20


def main() -> None:
    """Measure one plan and print its row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--size", type=int)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--reach", default="attention")
    parser.add_argument("--text-rate", type=float, default=0.0)
    parser.add_argument("--twice", action="store_true", help="compute blocks again for the backward pass")
    options = parser.parse_args()
    settings = Settings.from_environment(device="cpu", dtype=options.dtype)
    catalogue = Catalogue.load(CATALOGUE_PATH)
    OwnCheckpoints(settings.models_dir, catalogue).refresh()
    plan = plan_of(options, catalogue)
    growth, peak = measured(plan, catalogue, settings, is_checkpointed=options.twice)
    told_growth, told_peak = told(plan, catalogue, settings, is_checkpointed=options.twice)
    twice = "twice" if options.twice else ""
    print(
        f"| {options.model}, {options.dtype} | {plan.size} | {plan.batch_size} | {twice} | {growth:.0f} "
        f"| {told_growth:.0f} | {told_growth / growth:.2f} | {peak:.0f} | {told_peak:.0f} | {told_peak / peak:.2f} |"
    )


def plan_of(options: argparse.Namespace, catalogue: Catalogue) -> TrainingPlan:
    """What is asked, with nothing preserved."""
    asked = {
        "name": "bench", "folder": "nowhere", "checkpoint": options.model, "batch_size": options.batch,
        "size": options.size or catalogue.checkpoint(options.model).native_size, "rank": options.rank,
        "reach": options.reach, "text_learning_rate": options.text_rate, "num_prior": 0, "crop": "centre",
    }  # fmt: skip
    return resolve_training(parse_training(asked), catalogue, options.batch)


def measured(
    plan: TrainingPlan, catalogue: Catalogue, settings: Settings, *, is_checkpointed: bool
) -> tuple[float, float]:
    """Growth beyond the weights, and peak, in MB."""
    import torch

    from engines.devices import DTYPES
    from engines.memory import PeakMemory
    from engines.training.control import Control
    from engines.training.latents import TrainingPicture
    from engines.training.lora_run import LoraTraining
    from engines.training.preparing import Compute

    checkpoint, side = catalogue.checkpoint(plan.checkpoint), plan.size
    dtype = DTYPES[checkpoint.number_format(settings.dtype)]
    control = Control(check=lambda: None, tell=lambda event: None)
    with tempfile.TemporaryDirectory() as run, load_pool(settings).lease(checkpoint) as loaded:
        before = psutil.Process().memory_info().rss / MB
        compute = Compute(dtype=dtype, is_checkpointed=is_checkpointed)
        training = LoraTraining(loaded, plan, [], Path(run), Path(run), control, compute)
        pictures = [
            TrainingPicture(
                latents=torch.randn(4, side // 8, side // 8).half(),
                time_ids=(side, side, 0, 0, side, side),
                caption=f"a fox in the snow, number {index}",
            )
            for index in range(STEPS * plan.batch_size)
        ]
        steps = training._steps(training._trainee(), pictures)
        peak = PeakMemory(torch.device("cpu"))
        for _ in range(STEPS):
            next(steps)
        return peak.megabytes() - before, peak.megabytes()


def told(plan: TrainingPlan, catalogue: Catalogue, settings: Settings, *, is_checkpointed: bool) -> tuple[float, float]:
    """The same as it is told; drawing samples is left out on both sides."""
    from engines.plans import Means
    from studio.preflight import training_memory

    dtype = catalogue.checkpoint(plan.checkpoint).number_format(settings.dtype)
    plenty, none = (
        training_memory(plan, catalogue, settings, Means(device="cpu", dtype=dtype, free_bytes=free))
        for free in (2**50, 0)
    )
    memory = none if is_checkpointed else plenty
    growth = memory.trained + memory.step
    return growth / MB, (memory.process + memory.weights + growth) / MB


if __name__ == "__main__":
    main()
