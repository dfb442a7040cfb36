"""What the commands share that train something in the background: it is followed, told of, copied, listed."""

import argparse
import contextlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from studio.cli.arguments import complain
from studio.cli.delivery import prepared
from studio.cli.passing import passing_services
from studio.cli.progress import Bar, Lines, Silent, duration
from studio.cli.report import DONE, FAILED, STOPPED
from studio.domain.events import Event, Failed, Progress
from studio.domain.run_files import EXPORTS
from studio.files import storage_errors
from studio.job import Job
from studio.run_service import PREPARING, RunService
from studio.runs import Run, RunPlan, Runs
from studio.services import Services
from studio.settings import Settings


def carry_out(
    options: argparse.Namespace,
    command: str,
    plan_type: type[RunPlan],
    service_of: Callable[[Services], RunService[Any]],
    asked: Callable[[], Any],
) -> int:
    """Do what `command` is asked: list its runs, take one up again, or begin the one that `asked` gives; gives the exit
    code.

    Raises:
        StudioError: nothing was begun, or the adapter could not be copied.
    """
    settings = Settings.from_environment()
    if options.list:
        return _listed(Runs(settings.runs_dir, plan_type).of())
    request = None if options.go_on else asked()
    folder = None if options.out is None else prepared(Path(options.out))
    out = sys.stdout  # within, what is printed goes to standard error
    with passing_services(settings, None) as services:
        service: Any = service_of(services)
        begun = service.go_on(options.go_on) if request is None else service.submit(request)
        return _follow_to_end(service, begun, command, folder, is_quiet=options.quiet, out=out)


def _follow_to_end(
    service: RunService[Any], begun: Run[Any], command: str, folder: Path | None, *, is_quiet: bool, out: TextIO
) -> int:
    """Tell how a run of `command` goes until it ends, write the id of what came of it to `out`, copy that to `folder`;
    gives the exit code.

    Raises:
        StorageFailed: it could not be copied.
    """
    reporter = new_reporter(is_quiet=is_quiet)
    job = service.job_of(begun)
    assert job is not None
    reporter.note(f"Run {begun.id}.")
    if outlook := service.outlook(begun):
        reporter.note(outlook)
    last, is_stopped = _follow(service, job, begun.id, reporter)
    ended = service.run_of(begun.id)
    if product := ended.record.product_id:
        print(product, file=out, flush=True)
        _copy(ended, folder)
    if isinstance(last, Failed):
        complain(f"{last.message} {last.hint}".strip())
        return FAILED
    reporter.note(_summary(ended, command, is_stopped))
    return STOPPED if is_stopped else DONE


def _listed(runs: tuple[Run[Any], ...]) -> int:
    """Print a line for each."""
    for run in runs:
        best = f", best at step {run.best.step}: {run.best.words}" if run.best else ""
        print(f"{run.id}  {run.plan.name} ({run.plan.checkpoint}): step {run.step} of {run.plan.num_steps}{best}")
    return DONE


def _follow(service: RunService[Any], job: Job, run_id: str, reporter: Silent) -> tuple[Event | None, bool]:
    """The last event; and whether Ctrl+C brought it about."""
    try:
        return _watch(service, job, run_id, reporter), False
    except KeyboardInterrupt:
        reporter.note("Stopping after this step; what is best so far is kept.")
        job.cancel()
        with contextlib.suppress(KeyboardInterrupt):
            return _watch(service, job, run_id, Silent()), True
        return None, True


def _watch(service: RunService[Any], job: Job, run_id: str, reporter: Silent) -> Event | None:
    event, looked = None, -1
    for event in job.events(previews=False):
        if isinstance(event, Progress):
            told = "" if event.eta_s is None else f", {duration(event.eta_s)} left"
            what = "picture" if event.phase == PREPARING else "step"
            reporter.progress(f"{what} {event.step} of {event.total}{told}", event.step / max(1, event.total))
        for look in service.run_of(run_id).looked:  # after its last word, too
            if look.step > looked:
                looked = look.step
                reporter.note(f"Step {look.step}: {look.words}.")
    return event


def _summary(run: Run[RunPlan], command: str, is_stopped: bool) -> str:
    best = run.best
    kept = f"Kept: that of step {best.step}, {best.words}." if best else "Nothing is kept: it did not get that far."
    if not is_stopped:
        return kept
    stopped = f"Stopped at step {run.step} of {run.plan.num_steps}."
    return f"{stopped} {kept} Go on: python -m studio {command} --go-on {run.id}"


def _copy(run: Run[RunPlan], folder: Path | None) -> None:
    if folder is None:
        return
    for layout in EXPORTS:
        if source := run.export(layout):
            suffix = "" if layout == "kohya" else "-diffusers"
            with storage_errors(folder):
                shutil.copyfile(source, folder / f"{run.record.product_id}{suffix}.safetensors")


def new_reporter(*, is_quiet: bool) -> Silent:
    """Says how far something is, in the way that suits where it is said."""
    if is_quiet:
        return Silent()
    return (Bar if sys.stderr.isatty() else Lines)("")
