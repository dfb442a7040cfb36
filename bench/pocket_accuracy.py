"""Measure a pocket model's prompt-following: `python bench/pocket_accuracy.py --per-kind 120 --held-out 30`."""

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import engines  # noqa: E402, F401  (before diffusers: see engines/torchvision_names.py)

# isort: split
import torch  # noqa: E402
from diffusers import AutoencoderTiny, DiffusionPipeline  # noqa: E402
from PIL import Image  # noqa: E402

from engines.parts import TINY_VAE_FOLDER  # noqa: E402
from engines.pocket.accuracy import GUIDANCE, Report, Sampling, Tally, measure  # noqa: E402
from engines.pocket.album import MOUNTED, mountedness, unmounted  # noqa: E402
from engines.pocket.novel import novel_trials  # noqa: E402
from engines.pocket.trials import TEST_SEED, trials  # noqa: E402
from engines.training.captions import with_trigger  # noqa: E402
from studio.domain.timesteps import timesteps_on  # noqa: E402


def main() -> None:
    """Draw, judge, print a table; with `--json` and `--mistakes` keep numbers and wrong pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "engines/pocket/weights/pocket-sd15")
    parser.add_argument("--per-kind", type=int, default=120, help="prompts of each kind, combinations seen in training")
    parser.add_argument("--held-out", type=int, default=40, help="prompts of each kind with an unseen combination")
    parser.add_argument("--novel", type=int, help="so many prompts with a shape that no model knows, instead")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--adapter", type=Path, help="one that was trained; with --few an accelerator")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the adapter")
    parser.add_argument("--trigger", default="", help="a word to put before every prompt")
    parser.add_argument("--album", action="store_true", help="how many carry that style; prompts are judged without it")
    parser.add_argument("--few", type=int, help="steps of the LCM sampler; then without guidance unless told")
    parser.add_argument("--grid", choices=("lcm", "trailing"), default="lcm", help="where those steps lie")
    parser.add_argument("--half", action="store_true", help="decode in bfloat16")
    parser.add_argument(
        "--tiny", nargs="?", type=Path, const=TINY_VAE_FOLDER, help="decode by the tiny autoencoder, or another one"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=TEST_SEED, help="of the prompts; another one to choose settings by")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--mistakes", type=Path, help="folder for the pictures that were judged wrong")
    options = parser.parse_args()
    pipeline = DiffusionPipeline.from_pretrained(options.folder, dtype=torch.float32)
    torch.set_num_threads(options.threads)
    pipeline.set_progress_bar_config(disable=True)
    if options.adapter:
        pipeline.load_lora_weights(options.adapter, adapter_name="tested")
        pipeline.set_adapters("tested", options.scale)
    if options.half:
        decode_in_half(pipeline.vae)
    if options.tiny:
        pipeline.vae = AutoencoderTiny.from_pretrained(options.folder / options.tiny, dtype=torch.float32)
    sampling = sampling_of(options)
    size = pipeline.unet.config.sample_size * 8
    novel = novel_trials(options.novel or 0, options.seed)
    tests = list(novel if options.novel else trials(options.per_kind, options.held_out, options.seed))
    tests = [replace(trial, prompt=with_trigger(trial.prompt, options.trigger)) for trial in tests]
    shares: list[float] = []

    def on_batch(done: int, batch: list, images: list[Image.Image], verdicts: list) -> None:
        print(f"\r{done}/{len(tests)}", end="", file=sys.stderr, flush=True)
        shares.extend(mountedness(image) for image in images)
        if options.mistakes is None:
            return
        options.mistakes.mkdir(parents=True, exist_ok=True)
        for trial, image, verdict in zip(batch, images, verdicts, strict=True):
            if not verdict.correct:
                image.save(options.mistakes / f"{trial.kind}-{trial.prompt.replace(' ', '_').replace(',', '')}.png")

    before = unmounted if options.album else None
    report = measure(pipeline, tests, size=size, sampling=sampling, before_judging=before, on_batch=on_batch)
    print(file=sys.stderr)
    print(table(report))
    if options.album:
        print(style(shares))
    if options.json:
        options.json.write_text(json.dumps(numbers(report, sampling), indent=2) + "\n")


def decode_in_half(vae: Any) -> None:
    """Let `vae` decode in bfloat16, as the studio's `half` does."""
    decode = vae.to(torch.bfloat16, memory_format=torch.channels_last).decode

    def decode_half(latents: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        return (decode(latents.to(torch.bfloat16), return_dict=False)[0].float(),)

    vae.decode = decode_half


def table(report: Report) -> str:
    """The report as Markdown."""
    lines = ["| kind | seen combinations | unseen combinations |", "|---|---|---|"]
    for kind in {**report.seen, **report.held_out}:
        lines.append(f"| {kind} | {report.seen.get(kind, '')} | {report.held_out.get(kind, '')} |")
    seen, held_out = (report.pooled(group) if group else "" for group in (report.seen, report.held_out))
    lines.append(f"| all | {seen} | {held_out} |")
    lines += ["", "| skill | right |", "|---|---|"]
    lines += [f"| {skill} | {tally} |" for skill, tally in report.skills.items()]
    return "\n".join(lines)


def style(shares: list[float]) -> str:
    """How many pictures carry the style, and how much of it there is on average."""
    carried = Tally(right=sum(share >= MOUNTED for share in shares), total=len(shares))
    error = 1.96 * statistics.stdev(shares) / len(shares) ** 0.5
    return f"\nIn the style: {carried}; {statistics.mean(shares):.3f} ± {error:.3f} of it on average"


def sampling_of(options: argparse.Namespace) -> Sampling:
    """How the pictures are drawn."""
    if options.few is None:
        return Sampling(steps=options.steps, guidance=GUIDANCE if options.guidance is None else options.guidance)
    timesteps = timesteps_on(options.grid, options.few)
    return Sampling(
        steps=options.few, guidance=1.0 if options.guidance is None else options.guidance, timesteps=timesteps
    )


def numbers(report: Report, sampling: Sampling) -> dict:
    """The report as plain values: [right, total] each."""
    groups = {"seen": report.seen, "held_out": report.held_out, "skills": report.skills}
    plain = {name: {key: [t.right, t.total] for key, t in group.items()} for name, group in groups.items()}
    scheduler = "lcm" if sampling.timesteps else "dpmpp_2m_karras"
    return {**vars(sampling), "scheduler": scheduler, **plain}


if __name__ == "__main__":
    main()
