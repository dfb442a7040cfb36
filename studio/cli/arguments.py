"""What may be typed: flags, help texts and bounds, read off the request's fields."""

import argparse
import sys
import textwrap
from typing import Any, NoReturn

from studio import __version__
from studio.cli.beginning_arguments import BEGINNING_FLAGS, OUTPAINT_FLAG, add_outpaint, outpaint_values
from studio.cli.dataset_arguments import add_dataset
from studio.cli.distil_arguments import DISTIL_FLAGS, add_distil
from studio.cli.enhance_arguments import add_enhance
from studio.cli.evaluate_arguments import EVALUATE_FLAGS, add_evaluate
from studio.cli.grid_arguments import GRID_FLAGS, add_grid
from studio.cli.hub_arguments import add_hub_actions
from studio.cli.merge_arguments import add_merge
from studio.cli.probe_arguments import PROBE_FLAGS, add_probe
from studio.cli.train_arguments import TRAIN_FLAGS, add_train
from studio.cli.verify_arguments import add_verify
from studio.domain.adapter import MAX_LORA_SCALE
from studio.domain.beginning import BORDERS
from studio.domain.catalogue import Catalogue
from studio.domain.request import NO_ACCELERATOR, GenerationRequest, bounds, home_of, label

FLAGS = {
    "negative_prompt": ("--negative", "TEXT"),
    "checkpoint": ("--model", "ID"),
    "style": ("--style", "ID"),
    "width": ("--width", "PX"),
    "height": ("--height", "PX"),
    "accelerator": ("--accelerator", "ID"),
    "decoder": ("--decoder", "ID"),
    "num_inference_steps": ("--steps", "N"),
    "guidance_scale": ("--guidance", "X"),
    "scheduler": ("--sampler", "ID"),
    "seed": ("--seed", "N"),
    "num_images": ("--num", "N"),
    "clip_skip": ("--clip-skip", "N"),
    **BEGINNING_FLAGS,
}
"""Field of the request → its flag and what stands for the value in the help."""

_COMMANDS = " | ".join((
    "generate", "enhance", "flash", "train", "grid", "evaluate", "probe", "distil", "dataset", "models", "adapters",
    "verify", "serve",
))  # fmt: skip
_EPILOG = "Settings come from FLASH_STUDIO_* variables, such as FLASH_STUDIO_DATA_DIR; the README lists them."


class _Formatter(argparse.HelpFormatter):
    """Leaves ids whole, which have hyphens."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the list of all options."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", _Formatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        hint = "Put a prompt of several words in quotes. " if message.startswith("unrecognized") else ""
        self.exit(2, f"error: {message}. {hint}See {self.prog} --help.\n")


def build_parser(catalogue: Catalogue) -> Parser:
    """The whole command line; the ids that may be chosen are those of `catalogue`."""
    parser = Parser(
        prog="python -m studio", description="Flash Studio without its page.", epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"Flash Studio {__version__}")
    commands = parser.add_subparsers(dest="command", metavar=_COMMANDS)
    generate = commands.add_parser(
        "generate", help="make pictures", description="Make pictures; their paths are printed as they are finished.",
        epilog=_EPILOG, allow_abbrev=False,
    )  # fmt: skip
    _add_request(generate, catalogue)
    _add_output(generate)
    add_enhance(commands.add_parser(
        "enhance", help="suggest better prompts",
        description="Suggest prompts that say more of what is to be seen, and why: by a language model at Groq where "
        "GROQ_API_KEY is set, else by the studio's own rules. Without a prompt: ideas.", allow_abbrev=False,
    ), catalogue)  # fmt: skip
    flash = commands.add_parser(
        "flash", help="compare few steps with many",
        description="Draw the same prompts and seeds in few steps and, with --compare-baseline, in many; time and "
        "compare them.", epilog=_EPILOG, allow_abbrev=False,
    )  # fmt: skip
    _add_flash(flash, catalogue)
    _add_output(flash)
    add_distil(commands.add_parser(
        "distil", help="make an accelerator",
        description="Distil a model into an adapter by which it draws in 2 to 8 steps, without guidance, what it draws "
        "in many with it. Ctrl+C keeps the best so far.", epilog=_EPILOG, allow_abbrev=False,
    ), catalogue)  # fmt: skip
    add_train(commands.add_parser(
        "train", help="teach a model something new from pictures",
        description="Train a LoRA on a folder of pictures with captions. Ctrl+C keeps the best so far; a run can be "
        "taken up again.", epilog=_EPILOG, allow_abbrev=False,
    ), catalogue)  # fmt: skip
    _add_comparisons(commands, catalogue)
    add_dataset(commands.add_parser(
        "dataset", help="look at pictures and prepare them", description="Pictures to train with.", allow_abbrev=False
    ))  # fmt: skip
    _add_models(commands.add_parser(
        "models", help="list the models, add or make one of your own",
        description="Without an action: list the models, what they are and where.", allow_abbrev=False,
    ), catalogue)  # fmt: skip
    _add_adapters(commands.add_parser(
        "adapters", help="list, inspect and keep adapters (LoRA)",
        description="Adapters (LoRA files): name one in a prompt as <lora:ID:0.8>.", allow_abbrev=False,
    ))  # fmt: skip
    _add_others(commands)
    return parser


def _add_others(commands: Any) -> None:
    """What draws nothing by itself."""
    add_verify(commands.add_parser(
        "verify", help="tell which marks pictures carry that say what they are",
        description="Tell which marks pictures carry: XMP, settings, the studio's own recipe, an invisible mark, C2PA. "
        "Exit code 0: all are marked as made by a model; 1: one is not; 2: one cannot be read.", allow_abbrev=False,
    ))  # fmt: skip
    serve = commands.add_parser(
        "serve", help="open the page", description="Open the page, as `python app.py` does.", allow_abbrev=False
    )
    serve.add_argument("--port", help="port of the page (0: any free one)")
    serve.add_argument("--host", help="address that the page listens on; others need a password then")
    serve.add_argument("--share", action="store_true", help="also open a public link through Gradio")


def _add_comparisons(commands: Any, catalogue: Catalogue) -> None:
    """What draws much and says what is better, or how it is."""
    add_grid(commands.add_parser(
        "grid", help="compare the checkpoints of a training run",
        description="Draw the same prompts and seeds with each adapter that a training run has kept, at several scales "
        "and without any, and say which is best. What was drawn before is not drawn again.", allow_abbrev=False,
    ))  # fmt: skip
    add_evaluate(commands.add_parser(
        "evaluate", help="say which of several ways of drawing is better, and how sure that is",
        description="Draw the same prompts and seeds with several systems, judge the pictures and compare them prompt "
        "by prompt. What was drawn before is not drawn again.", allow_abbrev=False,
    ))  # fmt: skip
    add_probe(commands.add_parser(
        "probe", help="tell what one prompt shows over many seeds",
        description="Draw one prompt many times and tell which share of the pictures shows each value of an attribute.",
        allow_abbrev=False,
    ), catalogue)  # fmt: skip


def request_values(options: argparse.Namespace) -> dict[str, object]:
    """The fields of the request that were given."""
    given = {field: getattr(options, field) for field in FLAGS if hasattr(options, field)}
    given |= outpaint_values(options.outpaint)
    tags = (f"<lora:{text}>" for text in options.lora)
    return {"prompt": " ".join([options.prompt, *tags]) if options.prompt.strip() else "", **given}


def flag(field: str | None) -> str:
    """The flag of a field, or "" for the prompt and what has none."""
    name = field or ""
    if name in BORDERS:
        return OUTPAINT_FLAG
    for plain in (GRID_FLAGS, EVALUATE_FLAGS, PROBE_FLAGS):
        if name in plain:
            return plain[name]
    is_own = name in ("out", "steps", "baseline_steps", "baseline_guidance")
    for flags in (DISTIL_FLAGS, TRAIN_FLAGS):
        if name in flags and name not in FLAGS:
            return flags[name][0]
    return f"--{name.replace('_', '-')}" if is_own else FLAGS.get(name, ("",))[0]


def _add_request(parser: argparse.ArgumentParser, catalogue: Catalogue) -> None:
    parser.add_argument("prompt", nargs="?", default="", help=_help("prompt", catalogue))
    for field, (name, metavar) in FLAGS.items():
        is_number = bounds(field)[0] is not None
        parser.add_argument(
            name,
            dest=field,
            metavar=metavar,
            type=_number if is_number else str,
            default=argparse.SUPPRESS,
            help=_help(field, catalogue),
        )
    add_outpaint(parser)
    parser.add_argument(
        "--lora", action="append", default=[], metavar="ID[:SCALE]",
        help=f"An adapter and how much of it, -{MAX_LORA_SCALE:g} to {MAX_LORA_SCALE:g} (1: as it was trained); may "
        "be given several times. The same as <lora:ID:SCALE> in the prompt.",
    )  # fmt: skip
    parser.add_argument(
        "--estimate-vram", action="store_true",
        help="make nothing; print the memory that it would take against what is free, here and on GPUs",
    )  # fmt: skip
    parser.add_argument(
        "--again", action="store_true",
        help="draw even what was made before; else a request repeated exactly is answered with that picture",
    )  # fmt: skip


def _add_flash(parser: argparse.ArgumentParser, catalogue: Catalogue) -> None:
    """The names of the values are those of `FlashRequest`."""
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="One or more, each in quotes.")
    for field in ("checkpoint", "accelerator", "decoder", "width", "height", "seed", "negative_prompt"):
        name, metavar = FLAGS[field]
        kind = _number if bounds(field)[0] is not None else str
        parser.add_argument(name, dest=field, metavar=metavar, type=kind, help=_help(field, catalogue), **given)
    parser.add_argument(
        "--adapter", metavar="FILE", help="An accelerator of your own: copied into the data folder, and used here."
    )
    parser.add_argument(
        "--steps", nargs="+", type=_number, metavar="N", help="Numbers of steps, each a column (2 4 8).", **given
    )
    parser.add_argument(
        "--num", dest="num_images", type=_number, metavar="N", help="Seeds for each prompt (2).", **given
    )
    parser.add_argument(
        "--compare-baseline", dest="has_baseline", action="store_true",
        help="also draw the model as it is, and compare with that",
    )  # fmt: skip
    parser.add_argument("--baseline-steps", type=_number, metavar="N", help="Steps of the baseline (30).", **given)
    parser.add_argument(
        "--baseline-guidance", type=_number, metavar="X", help="Its guidance scale (the model's own).", **given
    )


def _add_adapters(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(
        dest="action", metavar="list | show | add | edit | merge | push | pull | rename | remove"
    )
    listing = actions.add_parser("list", help="what adapters there are", allow_abbrev=False)
    show = actions.add_parser("show", help="what one is, and where it fits", allow_abbrev=False)
    add = actions.add_parser("add", help="copy a .safetensors file into the store", allow_abbrev=False)
    _add_edit(actions.add_parser(
        "edit", help="change what its card says", description="Change what an adapter's card says; what is not given "
        "stays as it is.", allow_abbrev=False,
    ))  # fmt: skip
    add_merge(actions.add_parser(
        "merge", help="make one of several", description="Make one adapter of several: merged into one file, kept as "
        "another.", allow_abbrev=False,
    ))  # fmt: skip
    add_hub_actions(actions)
    rename = actions.add_parser("rename", help="give one another name", allow_abbrev=False)
    remove = actions.add_parser("remove", help="delete one for good", allow_abbrev=False)
    add.add_argument("file", help="the .safetensors file")
    add.add_argument("--name", help="its name in the store (default: the file's)")
    for action in (show, rename, remove):
        action.add_argument("adapter", metavar="ID")
    show.add_argument("--model", metavar="ID", help="also say whether it fits this model")
    rename.add_argument("name", help="the new name")
    for action in (listing, show):
        action.add_argument("--json", action="store_true", help="print JSON")


def _add_edit(parser: argparse.ArgumentParser) -> None:
    """The names of the values are those of a card's fields."""
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    parser.add_argument("adapter", metavar="ID")
    parser.add_argument("--title", help='what it is called in lists; "" for the name that its file gives', **given)
    parser.add_argument(
        "--trigger-words", metavar="A, B", help="words that call it up, with commas between", **given
    )  # fmt: skip
    parser.add_argument(
        "--scale", dest="lora_scale", metavar="X", help="how much of it a click on its card asks for", **given
    )  # fmt: skip
    parser.add_argument("--notes", help="whatever its owner wants to remember", **given)
    parser.add_argument("--preview", metavar="FILE", help='a picture of what it does; "" for none', **given)


def _add_models(parser: argparse.ArgumentParser, catalogue: Catalogue) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    actions = parser.add_subparsers(dest="action", metavar="add | merge | remove | build-random")
    add = actions.add_parser(
        "add", help="offer a checkpoint that lies elsewhere on this machine",
        description="Link a diffusers folder or a .safetensors file into the models folder; its tensors tell what it "
        "is.", allow_abbrev=False,
    )  # fmt: skip
    add.add_argument("path", help="the folder or file")
    add.add_argument("--name", help="its id among the models (default: its own name)")
    merge = actions.add_parser(
        "merge", help="make one of a model and adapters, which then are in its weights",
        description="Write a model with adapters worked into its weights to the models folder: it draws what the model "
        "does with these adapters in the prompt.", allow_abbrev=False,
    )  # fmt: skip
    merge.add_argument("model", metavar="MODEL")
    merge.add_argument(
        "adapters", nargs="+", metavar="ADAPTER[:SCALE]", help="how much of each, as in a prompt (1: as it was trained)"
    )
    merge.add_argument("--name", required=True, help="the id of the new one among the models")
    remove = actions.add_parser(
        "remove", help="take one that was added out of the list; its files stay where they are", allow_abbrev=False
    )
    remove.add_argument("model", metavar="ID")
    build = actions.add_parser(
        "build-random", help="write a full-size checkpoint with random weights",
        description="Write a full-size checkpoint with random weights into the models folder: for measuring speed and "
        "memory, which do not depend on what weights know.", allow_abbrev=False,
    )  # fmt: skip
    build.add_argument("family", choices=[family.id for family in catalogue.families])
    build.add_argument("--name", help="its id among the models (default: random-FAMILY)")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", help="also copy the pictures here; nothing is overwritten")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the paths")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    parser.add_argument("--verbose", action="store_true", help="show the log")


def _help(field: str, catalogue: Catalogue) -> str:
    parts = [f"{label(field)}. {home_of(field).model_fields[field].description}"]
    low, high, _ = bounds(field)
    if low is not None:
        parts.append(f"{low:g} to {high:.0f};")
    rows = {
        "checkpoint": catalogue.checkpoints,
        "style": catalogue.styles,
        "scheduler": catalogue.schedulers,
        "accelerator": catalogue.accelerators,
    }
    if field in rows:
        parts.append(f"One of {', '.join(row.id for row in rows[field])};")
    default = GenerationRequest.model_fields[field].default
    if field != "prompt" and default != "":
        parts.append(f"default: {_default(field, default, catalogue)}.")
    return " ".join(parts).replace("%", "%%")


def _default(field: str, default: object, catalogue: Catalogue) -> object:
    if default is not None:
        return default
    fixed = {"checkpoint": catalogue.default_checkpoint, "style": catalogue.styles[0].id, "accelerator": NO_ACCELERATOR}
    return fixed.get(field, "the model's own")


def _number(text: str) -> int | float | str:
    """A number where `text` is one; else the text, which the request refuses in its own words."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def complain(message: str, field: str | None = None) -> None:
    """Say an error on standard error, naming the flag that caused it."""
    name = flag(field)
    print(f"error: {message}{f' ({name})' if name else ''}", file=sys.stderr)
