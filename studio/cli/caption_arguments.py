"""The flags of `dataset download`, `collect`, `caption`, `merge`, `verify` and `split`."""

import argparse
from typing import Any, get_args

from studio.captions.templates import PRESETS
from studio.dataset_layouts import LAYOUTS
from studio.domain.datasets import Layout
from studio.hub_pictures import USUAL_PICTURES

CAPTION_ACTIONS = ("caption", "merge", "verify", "split")
SOURCE_ACTIONS = ("download", "collect")
CAPTIONERS = ("pocket", "groq", "local")
ENGINES = ("processes", "ray")


def add_caption_actions(actions: Any) -> None:
    """Add all to the actions of `dataset`."""
    _add_caption(actions.add_parser(
        "caption", help="have the pictures of a folder captioned",
        description="Caption the pictures of a folder into shards beside it, which `merge` makes one set of captions. "
        "What has a caption is passed over, so that a run that was broken off, or was killed, goes on where it was.",
        allow_abbrev=False,
    ))  # fmt: skip
    merge = actions.add_parser(
        "merge", help="give the pictures the captions that shards have",
        description="Make one set of captions of shards, from however many people and machines. The order of shards, "
        "and merging again, change nothing.", allow_abbrev=False,
    )  # fmt: skip
    merge.add_argument(
        "--layout", choices=get_args(Layout), default="metadata",
        help="metadata: all captions in metadata.jsonl; text_files: a text file beside each picture (metadata)",
    )  # fmt: skip
    verify = actions.add_parser(
        "verify", help="say exactly what is missing or doubtful",
        description="Compare the pictures with the captions that shards have: what has none, what failed, what is "
        "doubtful, what was renamed, what is gone.", allow_abbrev=False,
    )  # fmt: skip
    verify.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    verify.add_argument("--redo-list", metavar="FILE", help="also write what is to be captioned again, for --redo")
    verify.add_argument(
        "--judge", metavar="NAME", help="also have a judge find captions that fit other pictures better (pocket-clip)"
    )
    for action in (merge, verify):
        action.add_argument("folder", metavar="FOLDER", help="where the pictures are")
        action.add_argument(
            "--shards", action="append", metavar="DIR",
            help="where shards are; may be given several times (FOLDER-captions)",
        )  # fmt: skip
    _add_split(actions.add_parser(
        "split", help="share the work out, or part the pictures for training and for testing",
        description="With --workers: the ranges that so many people or machines caption. With --parts: the pictures "
        "with their captions in a folder for each part, in which a picture stays whatever is added later.",
        allow_abbrev=False,
    ))  # fmt: skip


def add_source_actions(actions: Any) -> None:
    """Add both to the actions of `dataset`."""
    download = actions.add_parser(
        "download", help="fetch a data set of the Hugging Face hub",
        description="Fetch the first pictures with captions of a data set of the hub into the data folder, once.",
        allow_abbrev=False,
    )  # fmt: skip
    download.add_argument("dataset", metavar="OWNER/NAME")
    download.add_argument("--pictures", type=int, default=USUAL_PICTURES, metavar="N", help=f"({USUAL_PICTURES})")
    collect = actions.add_parser(
        "collect", help="gather the pictures of FFHQ, EasyPortrait, LAION-Face or nested folders",
        description="Gather pictures from folders as a data set has them, without its masks, in one folder with a "
        "metadata.jsonl that says where each came from and under which licence. The source is not changed.",
        allow_abbrev=False,
    )  # fmt: skip
    collect.add_argument("--src", required=True, metavar="FOLDER", help="where the data set is")
    collect.add_argument("--dst", required=True, metavar="FOLDER", help="where to gather; a new or an empty folder")
    collect.add_argument(
        "--layout-of", choices=tuple(LAYOUTS), default="folder", help="how it lies there; folder: any (folder)"
    )
    collect.add_argument("--min-size", type=int, default=1, metavar="PX", help="of the shorter side (1)")
    collect.add_argument("--max-aspect", type=float, default=3.0, metavar="X", help="longer by shorter side (3)")
    collect.add_argument(
        "--min-sharpness", type=float, default=0.0, metavar="X", help="blurred pictures have 1 to 4, others 8 to 30 (0)"
    )
    collect.add_argument("--sample", type=int, metavar="N", help="so many of what passes, drawn by --seed")
    collect.add_argument("--seed", type=int, default=0, metavar="N", help="another one draws others (0)")
    collect.add_argument("--licence", default="", metavar="TEXT", help="of all pictures, where the layout cannot tell")


def _add_caption(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="", help="where the pictures are")
    parser.add_argument(
        "--captioner", choices=CAPTIONERS, default="pocket",
        help="pocket: exact words for scenes of the pocket world; groq: a model at Groq, for money; local: a model of "
        "your own (pocket)",
    )  # fmt: skip
    parser.add_argument(
        "--model", metavar="ID", help="of groq: the model's id; of local: the folder with its weights, or its id"
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), default="detailed", help="what is asked for (detailed)")
    parser.add_argument("--template", metavar="FILE", help="a text file that asks for it in your words")
    parser.add_argument("--show-template", action="store_true", help="print what is asked for, and do nothing")
    parser.add_argument("--shards", metavar="DIR", help="where to keep the captions (FOLDER-captions)")
    parser.add_argument("--start", type=int, metavar="N", help="the first picture, from 0, in order of name")
    parser.add_argument("--end", type=int, metavar="N", help="the one after the last")
    parser.add_argument("--shard", metavar="I/N", help="part I of N, by name; nobody need know how many there are")
    parser.add_argument("--limit", type=int, metavar="N", help="caption so many, and stop")
    parser.add_argument("--redo", metavar="FILE", help="caption again what `verify --redo-list` wrote there")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="pictures that are asked for at once (1)")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N",
        help="processes that share this part; one that is killed is begun again (1)",
    )  # fmt: skip
    parser.add_argument(
        "--engine", choices=ENGINES, default="processes",
        help="what runs the workers: processes of this machine, or Ray, on the machines of the cluster of RAY_ADDRESS "
        "(processes)",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="only tell how many there are, the cost and the time")
    parser.add_argument("--yes", action="store_true", help="spend what is told without asking")
    parser.add_argument("--max-cost", type=float, metavar="USD", help="stop when these captions cost so much in all")
    parser.add_argument("--is-worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--max-wait", type=float, metavar="S", help="stop rather than wait longer (no limit)")


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="where the pictures are")
    parser.add_argument("--workers", type=int, metavar="N", help="print N ranges that hold each picture once")
    parser.add_argument("--parts", metavar="A=X,B=Y", help="names and shares, such as train=0.9,validation=0.1")
    parser.add_argument("--dst", metavar="FOLDER", help="where to write the parts; a new or an empty folder")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another one parts them in another way (0)")
