"""`distil`: begin a training run, tell how it goes, and say what came of it."""

import argparse
import contextlib
import shutil
import sys
from pathlib import Path

from studio.cli.arguments import complain
from studio.cli.delivery import prepared
from studio.cli.distil_arguments import DISTIL_FLAGS
from studio.cli.passing import passing_services
from studio.cli.progress import Bar, Lines, Silent, duration
from studio.cli.report import DONE, FAILED, STOPPED
from studio.distillation import PREPARING
from studio.domain.catalogue import Catalogue
from studio.domain.distillation import DistillationRequest, parse_distillation
from studio.domain.errors import InvalidRequest
from studio.domain.events import Event, Failed, Progress
from studio.domain.run_files import EXPORTS
from studio.files import storage_errors
from studio.job import Job
from studio.runs import Run, Runs
from studio.services import Services
from studio.settings import Settings


def run(options: argparse.Namespace, catalogue: Catalogue) -> int:
    """Train, print the accelerator's id; gives the exit code.

    Raises:
        StudioError: nothing was begun, or the adapter could not be copied.
    """
    settings = Settings.from_environment()
    if options.list:
        return _list(Runs(settings.runs_dir))
    request = None if options.go_on else _asked(options)
    folder = None if options.out is None else prepared(Path(options.out))
    reporter = _reporter(is_quiet=options.quiet)
    stdout = sys.stdout
    with passing_services(settings, None) as services:
        service = services.distillation
        begun = service.go_on(options.go_on) if request is None else service.submit(request)
        job = service.job_of(begun)
        assert job is not None
        reporter.note(f"Run {begun.id}.")
        last, is_stopped = _follow(services, job, begun.id, reporter)
        ended = service.run_of(begun.id)
        if accelerator := ended.record.accelerator_id:
            print(accelerator, file=stdout, flush=True)
            _copy(ended, folder)
    if isinstance(last, Failed):
        complain(f"{last.message} {last.hint}".strip())
        return FAILED
    reporter.note(_summary(ended, is_stopped))
    return STOPPED if is_stopped else DONE


def _asked(options: argparse.Namespace) -> DistillationRequest:
    given = {name: getattr(options, name) for name in ("name", *DISTIL_FLAGS) if hasattr(options, name)}
    if path := given.get("captions"):
        try:
            given["captions"] = tuple(Path(path).read_text(encoding="utf-8-sig").splitlines())
        except (OSError, UnicodeDecodeError):
            raise InvalidRequest(
                f"{path} cannot be read.", "Give a text file in UTF-8, a caption a line.", "captions"
            ) from None
    return parse_distillation({"name": "", **given})


def _follow(services: Services, job: Job, run_id: str, reporter: Silent) -> tuple[Event | None, bool]:
    """The last event; and whether Ctrl+C brought it about."""
    try:
        return _watch(services, job, run_id, reporter), False
    except KeyboardInterrupt:
        reporter.note("Stopping after this step; what is best so far is kept.")
        job.cancel()
        with contextlib.suppress(KeyboardInterrupt):
            return _watch(services, job, run_id, Silent()), True
        return None, True


def _watch(services: Services, job: Job, run_id: str, reporter: Silent) -> Event | None:
    event, looked = None, -1
    for event in job.events(previews=False):
        if not isinstance(event, Progress):
            continue
        told = "" if event.eta_s is None else f", {duration(event.eta_s)} left"
        what = "picture" if event.phase == PREPARING else "step"
        reporter.progress(f"{what} {event.step} of {event.total}{told}", event.step / max(1, event.total))
        for look in services.distillation.run_of(run_id).looked:
            if look.step > looked:
                looked = look.step
                reporter.note(f"Step {look.step}: {look.words}.")
    return event


def _summary(run: Run, is_stopped: bool) -> str:
    best = run.best
    kept = f"Kept: that of step {best.step}, {best.words}." if best else "Nothing is kept: it did not get that far."
    if not is_stopped:
        return kept
    return f"Stopped at step {run.step} of {run.plan.num_steps}. {kept} Go on: python -m studio distil --go-on {run.id}"


def _copy(run: Run, folder: Path | None) -> None:
    if folder is None:
        return
    for layout in EXPORTS:
        if source := run.export(layout):
            suffix = "" if layout == "kohya" else "-diffusers"
            with storage_errors(folder):
                shutil.copyfile(source, folder / f"{run.record.accelerator_id}{suffix}.safetensors")


def _list(runs: Runs) -> int:
    for run in runs.of():
        best = f", best at step {run.best.step}: {run.best.words}" if run.best else ""
        print(f"{run.id}  {run.plan.name} ({run.plan.checkpoint}): step {run.step} of {run.plan.num_steps}{best}")
    return DONE


def _reporter(*, is_quiet: bool) -> Silent:
    if is_quiet:
        return Silent()
    return (Bar if sys.stderr.isatty() else Lines)("")
