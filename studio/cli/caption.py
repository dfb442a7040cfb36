"""`dataset caption`: have the pictures of a folder captioned."""

import argparse
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

from studio.captions.capacity import plan_of
from studio.captions.fleet import UNFINISHED, run_fleet
from studio.captions.groq import GroqCaptioner
from studio.captions.ledger import Ledger, Prices
from studio.captions.limits import Limiter, Limits
from studio.captions.local import LocalCaptioner
from studio.captions.outliving import outlive
from studio.captions.parts import Part, Range, parse_part, ranges
from studio.captions.pictures import digest_of, names_in
from studio.captions.pocket import PocketCaptioner
from studio.captions.ray_fleet import run_ray
from studio.captions.shards import SUFFIX, Shard, Tail
from studio.captions.templates import Template, template_of
from studio.captions.verifying import read_redo_list
from studio.captions.work import Done, OnProgress, Wishes
from studio.captions.work import run as caption_all
from studio.cli.progress import Silent
from studio.cli.report import DONE, FAILED
from studio.domain.captions import Captioner
from studio.domain.errors import InvalidRequest
from studio.groq_chat import GroqChat
from studio.settings import Settings

MAX_PARALLEL = 64
_SHOWN = 10


def run(options: argparse.Namespace, reporter: Silent) -> int:
    """Caption what was asked for; gives the exit code: done only if each picture of this part has a caption.

    Raises:
        StudioError: no more can be captioned now; what was made is kept.
    """
    template = template_of(options.preset, Path(options.template) if options.template else None)
    if options.show_template:
        print(template.text)
        return DONE
    _check(options)
    settings = Settings.from_environment()
    with closing(_captioner(options, template, settings)) as captioner:
        return _run(options, reporter, captioner, settings)


def _run(options: argparse.Namespace, reporter: Silent, captioner: Captioner, settings: Settings) -> int:
    folder = Path(options.folder)
    shards = Path(options.shards) if options.shards else shards_of(folder)
    part = parse_part(options.start, options.end, options.shard)
    names = part.of(names_in(folder))
    prices = _prices(captioner, settings)
    ledger = Ledger(shards, captioner.template, prices, options.max_cost)
    wishes = Wishes(
        parallel=options.parallel,
        limit=options.limit,
        max_wait_s=options.max_wait,
        redo=read_redo_list(Path(options.redo)) if options.redo else {},
    )
    if options.dry_run or not (prices.is_free or options.is_worker):
        told, count = _plan(folder, names, captioner, ledger, wishes, settings)
        if options.dry_run:
            print(told)
            return DONE
        reporter.note(told)
        if count and not (options.yes or options.max_cost is not None or _agreed(told)):
            return DONE
    if options.workers > 1 or options.engine == "ray":
        return _by_fleet(options, reporter, part, len(names), shards)
    path = shards / f"{part.label}{SUFFIX}"
    if options.is_program and not prices.is_free:
        code = outlive(lambda: Shard.tell_ending(path))
        if code is not None:
            return code
    with Shard(path, is_paid=not prices.is_free) as shard, _ended_gently():
        done = caption_all(folder, names, captioner, shard, ledger, wishes, _telling(reporter))
    for name, why in done.parked[:_SHOWN]:
        reporter.note(f"Put off: {name}: {why}")
    reporter.note(done.summary)
    if not prices.is_free:
        reporter.note(f"${ledger.cost:.2f} for these captions so far.")
    print(shards)
    is_all = not (done.parked or done.failed or done.gone)
    return DONE if is_all else UNFINISHED if options.is_worker else FAILED


def shards_of(folder: Path) -> Path:
    """Where the captions of a folder are kept unless somebody says otherwise: beside it, under its name."""
    whole = folder.resolve()
    return whole.with_name(f"{whole.name}-captions")


def _check(options: argparse.Namespace) -> None:
    if not options.folder:
        raise InvalidRequest("There is no folder to caption.", "Give one that holds pictures.", "folder")
    bounds = (
        ("parallel", options.parallel, MAX_PARALLEL), ("workers", options.workers, MAX_PARALLEL),
        ("limit", options.limit, 10**9),
    )  # fmt: skip
    for name, value, high in bounds:
        if value is not None and not 1 <= value <= high:
            raise InvalidRequest(f"{value} does not work.", f"Give 1 to {high:,}.", name)
    for name, value in (("max_cost", options.max_cost), ("max_wait", options.max_wait)):
        if value is not None and not 0 <= value < float("inf"):
            raise InvalidRequest(f"{value} does not work.", "Give 0 or more.", name)
    if options.workers > 1 and options.shard:
        raise InvalidRequest("--workers shares out a range, not a --shard.", "Leave one of them out.", "workers")


def _captioner(options: argparse.Namespace, template: Template, settings: Settings) -> Captioner:
    if options.captioner == "pocket":
        return PocketCaptioner()
    if options.captioner == "local":
        if not options.model:
            raise InvalidRequest(
                "There is no model to caption with.",
                "Give the folder of one that reads pictures, such as BLIP.",
                "model",
            )
        return LocalCaptioner(Path(options.model), template.text, settings.device)
    models = (options.model,) if options.model else settings.vision_models
    limits = _limits(settings)
    captioner = GroqCaptioner(GroqChat(settings), models, template, Limiter(settings.groq_limits_path, limits))
    if not options.dry_run:
        captioner.check()
    return captioner


def _limits(settings: Settings) -> Limits:
    return Limits(
        requests_per_minute=settings.groq_requests_per_minute,
        requests_per_day=settings.groq_requests_per_day,
        tokens_per_minute=settings.groq_tokens_per_minute,
        tokens_per_day=settings.groq_tokens_per_day,
    )


def _prices(captioner: Captioner, settings: Settings) -> Prices:
    if not isinstance(captioner, GroqCaptioner):
        return Prices()
    return Prices(prompt=settings.groq_prompt_price, completion=settings.groq_answer_price)


def _plan(
    folder: Path, names: Sequence[str], captioner: Captioner, ledger: Ledger, wishes: Wishes, settings: Settings
) -> tuple[str, int]:
    """What it will take, in words, and how many pictures that is."""
    ledger.refresh()
    digests = {digest for name in names if (digest := digest_of(folder / name)) is not None}
    count = sum(not ledger.is_had(digest, wishes.redo.get(digest)) for digest in digests)
    count = count if wishes.limit is None else min(count, wishes.limit)
    if not isinstance(captioner, GroqCaptioner):
        return f"{count} of {len(names)} pictures to caption, for nothing.", count
    told = plan_of(count, captioner.tokens, _prices(captioner, settings), _limits(settings)).summary
    return (f"{told} ${ledger.cost:.2f} were spent here so far." if ledger.cost else told), count


def _agreed(told: str) -> bool:
    """Whether whoever is here agrees to what it will cost."""
    if not sys.stdin.isatty():
        raise InvalidRequest(f"{told} Nobody is here to agree.", "Give --yes, or --max-cost.", "yes")
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _by_fleet(options: argparse.Namespace, reporter: Silent, part: Part, total: int, shards: Path) -> int:
    start = part.start if isinstance(part, Range) else 0
    given = ["dataset", "caption", options.folder, "--shards", str(shards), "--quiet", "--yes", "--is-worker"]
    for name in ("captioner", "model", "preset", "template", "redo", "parallel", "max_cost", "max_wait"):
        value = getattr(options, name)
        given += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    commands = [
        [*given, "--start", str(start + each.start), "--end", str(start + (each.end or 0))]
        for each in ranges(total, options.workers)
    ]
    tail, told = Tail(shards), 0
    for _ in tail.rows():
        continue  # those of earlier runs

    def look() -> None:
        nonlocal told
        told += sum(1 for _ in tail.rows())
        reporter.progress(f"{told} of {total} captioned by {options.workers} processes", min(1.0, told / max(1, total)))

    run_all = run_ray if options.engine == "ray" else run_fleet
    unfinished, restarts = run_all(commands, look)
    reporter.note(f"{told} rows written by {options.workers} processes; {restarts} had to be begun again.")
    print(shards)
    return FAILED if unfinished else DONE


def _telling(reporter: Silent) -> OnProgress:
    def tell(done: Done, told: str) -> None:
        if told:
            reporter.note(told)
        at = done.made + done.had + done.failed + done.gone
        had = f", {done.had} had one" if done.had else ""
        reporter.progress(f"{done.made} captioned of {done.num_pictures}{had}", at / max(1, done.num_pictures))

    return tell


@contextmanager
def _ended_gently() -> Generator[None]:
    """SIGTERM ends like Ctrl+C: what is under way is kept."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        earlier = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
