"""Runs a command and turns how it ended into an exit code: 0 done, 1 failed, 2 asked wrongly, 130 stopped."""

import argparse
import logging
import runpy
import sys
from collections.abc import Sequence

from lora_registry.store import AdapterStore
from studio.checkpoints import OwnCheckpoints
from studio.cli import adapters, dataset, distil, enhance, evaluate, flash, generate, grid, models, probe, train, verify
from studio.cli.arguments import build_parser, complain
from studio.cli.report import DONE, FAILED, STOPPED, WRONG
from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest, StudioError
from studio.generation import EngineHolder
from studio.own_accelerators import OwnAccelerators
from studio.services import CATALOGUE_PATH
from studio.settings import PROJECT_ROOT, Settings


def main(argv: Sequence[str] | None = None, engine: EngineHolder | None = None) -> int:
    """Run the command line `argv`; gives the exit code. An `engine` that is loaded already may be handed in."""
    catalogue = Catalogue.load(CATALOGUE_PATH)
    given = sys.argv[1:] if argv is None else list(argv)
    parser = build_parser(catalogue)
    try:
        options = parser.parse_args(given)
    except SystemExit as ending:  # argparse has said what is wrong, or printed its help
        return WRONG if ending.code else DONE
    if options.command is None:
        parser.print_help(sys.stderr)
        return WRONG
    options.is_program = argv is None
    try:
        return _run(options, catalogue, engine)
    except InvalidRequest as error:
        complain(str(error), error.field)
        return WRONG
    except StudioError as error:
        complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        return STOPPED


def _run(options: argparse.Namespace, catalogue: Catalogue, engine: EngineHolder | None) -> int:
    if options.command == "serve":
        return _serve(options.port, options.host, options.share)
    if options.command == "dataset":
        return dataset.run(options, engine)
    if options.command == "verify":
        return verify.run(options)
    settings = Settings.from_environment()
    if options.command == "models":
        return models.run(options, catalogue, settings)
    OwnCheckpoints(settings.models_dir, catalogue).refresh()
    OwnAccelerators(AdapterStore(settings.accelerators_dir), catalogue).refresh()
    if options.command == "adapters":
        return adapters.run(options, catalogue, settings)
    if options.command == "enhance":
        return enhance.run(options, catalogue, settings)
    # An error that a person is meant to read comes with the job's end; the log is for who looks for more.
    level = logging.INFO if options.verbose else logging.CRITICAL
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    if options.command in ("distil", "train"):
        return (distil if options.command == "distil" else train).run(options, catalogue)
    command = {"flash": flash, "grid": grid, "evaluate": evaluate, "probe": probe}.get(options.command, generate)
    return command.run(options, catalogue, engine)


def _serve(port: str | None, host: str | None, share: bool) -> int:
    """Run app.py as a script: nothing may import the composition root."""
    named = {"--port": port, "--host": host}
    given = [part for flag, value in named.items() if value is not None for part in (flag, value)]
    sys.argv = ["app.py", *given, *(["--share"] if share else [])]
    runpy.run_path(str(PROJECT_ROOT / "app.py"), run_name="__main__")
    return DONE
