"""One training in a process of its own: `python -m studio.training_worker FOLDER`.

The first line of standard input holds the settings; later ones are `hold`, `go on` and `stop`. What happens is told on
standard output and in the folder, a line of JSON each. A process whose studio is gone saves what it has and ends.
Without that first line, as under `accelerate launch`, the environment holds the settings, and Ctrl+C stops.
"""

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING

from engines.failures import is_out_of_memory
from engines.hub_datasets import fetch_dataset
from engines.plans import Means
from studio.checkpoints import OwnCheckpoints
from studio.dataset_files import read_dataset
from studio.domain.catalogue import Catalogue
from studio.domain.distillation import DistillationPlan
from studio.domain.errors import OutOfMemory, StudioError
from studio.domain.run_events import Broken, Preparing, RunEvent, line_of
from studio.domain.run_files import EVENTS, PLAN
from studio.domain.run_plans import RunPlan, plan_of
from studio.domain.training import TrainingPlan
from studio.preflight import training_memory
from studio.services import CATALOGUE_PATH, load_pool
from studio.settings import Settings
from studio.training import training_items
from studio.training_process import BROKEN, FINISHED, GO_ON, HOLD, SETTINGS, STOP, STOPPED

if TYPE_CHECKING:
    from engines.distillation.run import Distillation
    from engines.loading import Loaded
    from engines.training.lora_run import LoraTraining
    from engines.training.preparing import Compute

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """Whoever watches wants no more."""


class Line:
    """What is said to this process, and what it says."""

    def __init__(self, incoming: IO[str], outgoing: IO[str], events: Path) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._events = events
        self._free = threading.Event()
        self._free.set()
        self._is_stopped = False

    def listen(self) -> None:
        """Follow commands, from a thread of its own, until there is nobody to give any."""
        for line in self._incoming:
            command = line.strip()
            if command == HOLD:
                self._free.clear()
            elif command == GO_ON:
                self._free.set()
            elif command == STOP:
                break
        self.stop()

    def stop(self) -> None:
        """Let the next `check` raise."""
        self._is_stopped = True
        self._free.set()

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop, since whoever started this process says so."""
        self.stop()

    def check(self) -> None:
        """Wait while held; raises Stopped."""
        self._free.wait()
        if self._is_stopped:
            raise Stopped

    def tell(self, event: RunEvent) -> None:
        """Say it, and write it down."""
        with self._events.open("a", encoding="utf-8") as file:
            file.write(line_of(event))
        try:
            self._outgoing.write(line_of(event))
            self._outgoing.flush()
        except OSError:  # nobody listens any more; `listen` notices, too
            self._is_stopped = True


class Nobody:
    """Whoever watches a process that only learns along: says nothing and hears nothing."""

    def check(self) -> None:
        """Go on."""

    def tell(self, event: RunEvent) -> None:
        """Nobody listens."""


def train(folder: Path, settings: Settings, line: Line | Nobody) -> None:
    """Go on with the run in `folder` to its end.

    Raises:
        Stopped: somebody asked for it; what there is is saved.
        StudioError: it cannot go on.
    """
    plan = plan_of((folder / PLAN).read_bytes())
    items = _items(plan, settings, line)
    catalogue = Catalogue.load(CATALOGUE_PATH)
    OwnCheckpoints(settings.models_dir, catalogue).refresh()
    pool = load_pool(settings)
    compute = _compute(plan, catalogue, settings)
    with pool.lease(catalogue.checkpoint(plan.checkpoint)) as loaded:
        run = _run_of(folder, loaded, items, settings, line, compute)
        try:
            run.run()
        except Stopped:
            run.export()
            raise


def _compute(plan: RunPlan, catalogue: Catalogue, settings: Settings) -> "Compute":
    """What is computed with; joins the other processes of a LoRA training, if there are any."""
    from engines.devices import choose_device  # as in load_pool
    from engines.training.preparing import Compute
    from engines.training.processes import Processes

    device = choose_device(settings.device, settings.dtype)
    if not isinstance(plan, TrainingPlan):
        return Compute(dtype=device.dtype)
    return Compute(
        dtype=device.dtype,
        is_checkpointed=_is_short(plan, catalogue, settings),
        processes=Processes.joined(on_cpu=device.name == "cpu"),
    )


def _is_short(plan: TrainingPlan, catalogue: Catalogue, settings: Settings) -> bool:
    """Whether memory is so short that steps have to compute parts twice."""
    from engines.devices import choose_device, dtype_name, free_bytes  # as in load_pool

    device = choose_device(settings.device, settings.dtype)
    dtype = catalogue.checkpoint(plan.checkpoint).number_format(dtype_name(device.dtype))
    free = int(settings.memory_gb * 2**30) or free_bytes(device.name)
    means = Means(device=device.name, dtype=dtype, free_bytes=free)
    return training_memory(plan, catalogue, settings, means).is_checkpointed


def _run_of(
    folder: Path,
    loaded: "Loaded",
    items: list[tuple[Path, str]],
    settings: Settings,
    line: Line | Nobody,
    compute: "Compute",
) -> "Distillation | LoraTraining":
    from engines.distillation.run import Distillation  # as in load_pool
    from engines.training.control import Control
    from engines.training.lora_run import LoraTraining

    plan = plan_of((folder / PLAN).read_bytes())
    control = Control(check=line.check, tell=line.tell)
    if isinstance(plan, TrainingPlan):
        return LoraTraining(loaded, plan, items, folder, settings.cache_dir, control, compute)
    return Distillation(loaded, plan, items, folder, control, compute.dtype)


def _items(plan: RunPlan, settings: Settings, line: Line | Nobody) -> list[tuple[Path, str]]:
    """The pictures and captions of a plan whose source are files; those of the hub are fetched first."""
    if isinstance(plan, DistillationPlan) and plan.source not in ("folder", "hub"):
        return []
    folder = Path(plan.folder)
    if isinstance(plan, TrainingPlan):
        return training_items(folder)
    if plan.source == "hub":
        folder = fetch_dataset(
            plan.dataset,
            plan.num_pictures,
            settings.datasets_dir,
            offline=settings.offline,
            on_progress=lambda done, total: line.tell(Preparing(done=done, total=total)),
            check=line.check,
        )
    return [(item.path, item.caption) for item in read_dataset(folder).items]


def main() -> None:
    """Train, and say by the exit status how it ended."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = Path(sys.argv[1])
    outgoing = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not come between the lines
    if int(os.environ.get("RANK", "0")):
        sys.exit(_follow(folder))
    said = "" if sys.stdin.isatty() else sys.stdin.readline()
    line = Line(sys.stdin, outgoing, folder / EVENTS)
    if said:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the studio, which says stop
        threading.Thread(target=line.listen, name="commands", daemon=True).start()
    else:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, line.on_signal)
    sys.exit(_ending(folder, Settings.model_validate_json(said) if said else Settings.from_environment(), line))


def _follow(folder: Path) -> int:
    """Learn as one of several processes, until the first one is done or gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    said = os.environ.get(SETTINGS)
    settings = Settings.model_validate_json(said) if said else Settings.from_environment()
    try:
        train(folder, settings, Nobody())
    except RuntimeError as error:  # what the library throws whose other end has gone
        logger.warning("the first process of the training is gone: %s", error)
    return FINISHED


def _ending(folder: Path, settings: Settings, line: Line) -> int:
    try:
        train(folder, settings, line)
        return FINISHED
    except Stopped:
        return STOPPED
    except StudioError as error:
        line.tell(Broken(message=error.message, hint=error.hint))
    except Exception as error:
        if not is_out_of_memory(error) and not isinstance(error, OSError):
            raise
        logger.exception("the training ended")
        told = _explained(error)
        line.tell(Broken(message=told.message, hint=told.hint))
    return BROKEN


def _explained(error: Exception) -> StudioError:
    if isinstance(error, OSError):
        return StudioError(
            f"The run's folder cannot be written: {error.strerror or 'the system does not say why'}.",
            "Free some space, then go on with the run.",
        )
    return OutOfMemory(
        "The machine has too little memory for this training.", "Take fewer pictures a step, or a smaller rank."
    )


if __name__ == "__main__":
    main()
