"""`generate`: put a job in line, tell how it goes, and hand its pictures over."""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from studio.cli import estimate
from studio.cli.arguments import complain, request_values
from studio.cli.delivery import Delivery, prepared
from studio.cli.passing import passing_services
from studio.cli.progress import Silent, choose_reporter
from studio.cli.report import STOPPED, Outcome, Report
from studio.domain.catalogue import Catalogue
from studio.domain.events import TERMINAL, Event, Failed, Finished, Held, ImageReady
from studio.domain.request import GenerationRequest, parse_request
from studio.generation import EngineHolder
from studio.job import Job
from studio.prompts import remarks
from studio.settings import Settings
from studio.sources import Sources

_VISITOR = "local"
_PATIENCE_S = 30.0
"""How long a stopped job may take to its next step, in seconds: the loading of a large model does not listen."""


def run(options: argparse.Namespace, catalogue: Catalogue, engine: EngineHolder | None) -> int:
    """Check all that can be checked, make the pictures, print where they are; gives the exit code.

    Raises:
        StudioError: nothing was made, or a finished picture could not be copied.
    """
    settings = Settings.from_environment()
    recipe = catalogue.resolve(_request(options, catalogue, settings))
    if options.estimate_vram:
        return estimate.run(recipe, catalogue, settings, as_json=options.json)
    folder = None if options.out is None else prepared(Path(options.out))
    checkpoint = catalogue.checkpoint(recipe.checkpoint)
    reporter = choose_reporter(checkpoint, settings, is_quiet=options.quiet)
    for remark in remarks(recipe, catalogue):
        reporter.note(remark)
    stdout = sys.stdout
    with passing_services(settings, engine) as services:
        started = time.monotonic()
        job = services.generation.submit(recipe.as_request(), again=options.again)
        delivery = Delivery(job.id, services.gallery, folder)

        def deliver(image_id: str) -> None:
            if picture := delivery.take(image_id):
                reporter.picture(picture)
                if not options.json:
                    print(picture.path, file=stdout, flush=True)

        outcome = follow(job, deliver, reporter)
        report = Report(outcome, recipe, tuple(delivery.pictures), time.monotonic() - started)
        if options.json:
            print(report.document(), file=stdout, flush=True)
        reporter.note(report.summary())
        if outcome.error:
            complain(outcome.error + ("" if options.verbose else " (--verbose shows the log.)"))
        if outcome.is_abandoned:
            os._exit(STOPPED)  # the worker is busy with what does not listen, perhaps a download; nobody waits for it
    return outcome.exit_code


def _request(options: argparse.Namespace, catalogue: Catalogue, settings: Settings) -> GenerationRequest:
    """What is asked for, its pictures kept and fitted to the size that is drawn."""
    sources = Sources(settings.sources_dir)
    request = parse_request(sources.taken(request_values(options), _VISITOR))
    if not request.init_image:
        return request
    return sources.prepared(request, catalogue.checkpoint_of(request), _VISITOR)


def follow(job: Job, deliver: Callable[[str], None], reporter: Silent) -> Outcome:
    """Hand the ids of the job's pictures to `deliver` until it is over; some come twice. Ctrl+C cancels the job."""
    try:
        return _outcome(_watch(job, deliver, reporter))
    except KeyboardInterrupt:
        reporter.note("Stopping after this step; Ctrl+C again leaves at once.")
        job.cancel()
        with contextlib.suppress(KeyboardInterrupt):
            return replace(_outcome(_watch(job, deliver, Silent(), _PATIENCE_S)), is_stopped=True)
        return Outcome(status="cancelled", is_stopped=True, is_abandoned=True)
    finally:
        if not job.is_over:
            job.cancel()


def _watch(job: Job, deliver: Callable[[str], None], reporter: Silent, timeout: float | None = None) -> Event | None:
    """The last event, after all of them have been told, or the first that says that it does not go on."""
    event = None
    for event in job.events(timeout=timeout, previews=False):
        if isinstance(event, ImageReady):
            deliver(event.image_id)
        elif isinstance(event, Held) and job.held:  # a script would wait for good
            return event
        else:
            reporter.event(event)
    return event


def _outcome(last: Event | None) -> Outcome:
    match last:
        case Finished():
            return Outcome(status="finished")
        case Failed(message=message, hint=hint) | Held(message=message, hint=hint):
            return Outcome(status="failed", error=f"{message} {hint}".strip())
        case _:
            return Outcome(status="cancelled", is_abandoned=not isinstance(last, TERMINAL))
