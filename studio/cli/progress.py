"""Progress on standard error: a line that renews itself on a terminal, a few plain lines elsewhere, or nothing."""

import shutil
import sys
import time

from studio.cli.models import place
from studio.domain.catalogue import Checkpoint
from studio.domain.events import Event, Progress, Started
from studio.domain.images import ImageRecord
from studio.settings import Settings

_BAR_CELLS = 24
_LINE_EVERY_S = 10.0
_CLEAR = "\r\x1b[K"


class Silent:
    """Says nothing."""

    def event(self, event: Event) -> None:
        """Tell of anything but a picture."""

    def picture(self, record: ImageRecord) -> None:
        """Tell of a finished picture."""

    def note(self, text: str) -> None:
        """Say a sentence."""


class Lines(Silent):
    """A line when the model is loaded, for each picture, and now and then in between: for logs."""

    def __init__(self, loading: str) -> None:
        self._loading = loading
        self._said_at = time.monotonic()

    def event(self, event: Event) -> None:
        if isinstance(event, Started):
            self.note(self._loading)
        elif isinstance(event, Progress):
            self.progress(event)

    def progress(self, event: Progress) -> None:
        """Tell of a step."""
        if time.monotonic() - self._said_at >= _LINE_EVERY_S:
            self.note(position(event))

    def picture(self, record: ImageRecord) -> None:
        self.note(f"Picture {record.image_index + 1}: seed {record.recipe.seed}, {record.seconds['total']:.1f} s.")

    def note(self, text: str) -> None:
        self._said_at = time.monotonic()
        print(text, file=sys.stderr, flush=True)


class Bar(Lines):
    """One line at the bottom of a terminal: a bar, the picture, the step and the time left."""

    def progress(self, event: Progress) -> None:
        done = event.image_index * event.total + event.step
        filled = round(_BAR_CELLS * done / (event.num_images * event.total))
        line = f"[{'#' * filled}{'.' * (_BAR_CELLS - filled)}] {position(event)}"
        # A line that reaches the right edge would wrap, and could not be cleared.
        self._write(_CLEAR + line[: shutil.get_terminal_size().columns - 1])

    def picture(self, record: ImageRecord) -> None:
        self._write(_CLEAR)  # its path is printed now

    def note(self, text: str) -> None:
        self._write(_CLEAR)
        super().note(text)

    def _write(self, text: str) -> None:
        print(text, end="", file=sys.stderr, flush=True)


def choose_reporter(checkpoint: Checkpoint, settings: Settings, *, is_quiet: bool) -> Silent:
    """The reporter that suits where standard error goes."""
    if is_quiet:
        return Silent()
    loading = f"Loading {checkpoint.title}."
    if place(checkpoint, settings).kind == "download":
        loading = f"Fetching {checkpoint.title}, {checkpoint.download_gb:g} GB: this once."
    return (Bar if sys.stderr.isatty() else Lines)(loading)


def position(event: Progress) -> str:
    """Where a job is: the picture, the step and the time left."""
    text = f"picture {event.image_index + 1} of {event.num_images}, step {event.step} of {event.total}"
    return text if event.eta_s is None else f"{text}, {_duration(event.eta_s)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
