"""Progress on standard error: a line that renews itself on a terminal, a few plain lines elsewhere, or nothing."""

import shutil
import sys
import time

from studio.cli.delivery import Picture
from studio.cli.models import place
from studio.domain.catalogue import Checkpoint
from studio.domain.events import Drawing, Event, Fetching, Progress
from studio.settings import Settings

_BAR_CELLS = 24
_LINE_EVERY_S = 10.0
_CLEAR = "\r\x1b[K"


class Silent:
    """Says nothing."""

    def event(self, event: Event) -> None:
        """Tell of anything but a picture."""

    def picture(self, picture: Picture) -> None:
        """Tell of a finished picture."""

    def note(self, text: str) -> None:
        """Say a sentence."""

    def progress(self, text: str, share: float) -> None:
        """Tell how far it is, in words and as a share of the whole."""


class Lines(Silent):
    """A line when the model is loaded, for each picture, and now and then in between: for logs."""

    def __init__(self, loading: str) -> None:
        self._loading = loading
        self._said_at = time.monotonic()

    def event(self, event: Event) -> None:
        if isinstance(event, Drawing):
            self.note(self._loading)
        elif isinstance(event, Fetching):
            self.progress(fetched(event), event.done_bytes / max(1, event.total_bytes))
        elif isinstance(event, Progress):
            done = event.image_index + event.step / event.total
            self.progress(position(event), done / event.num_images)

    def progress(self, text: str, share: float) -> None:
        """Tell how far it is, in words and as a share of the whole."""
        if time.monotonic() - self._said_at >= _LINE_EVERY_S:
            self.note(text)

    def picture(self, picture: Picture) -> None:
        record = picture.record
        if picture.is_earlier:
            self.note(f"Seed {record.recipe.seed}: made before, on {record.made_on}.")
        else:
            self.note(f"Picture {record.image_index + 1}: seed {record.recipe.seed}, {record.seconds['total']:.1f} s.")

    def note(self, text: str) -> None:
        self._said_at = time.monotonic()
        print(text, file=sys.stderr, flush=True)


class Bar(Lines):
    """One line at the bottom of a terminal: a bar, the picture, the step and the time left."""

    def progress(self, text: str, share: float) -> None:
        filled = round(_BAR_CELLS * share)
        line = f"[{'#' * filled}{'.' * (_BAR_CELLS - filled)}] {text}"
        # A line that reaches the right edge would wrap, and could not be cleared.
        self._write(_CLEAR + line[: shutil.get_terminal_size().columns - 1])

    def picture(self, picture: Picture) -> None:
        self._write(_CLEAR)  # its path is printed now
        if picture.is_earlier:
            super().picture(picture)

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


def fetched(event: Fetching) -> str:
    """How much of a model is here."""
    text = f"{event.done_bytes / 1e9:.1f} of {event.total_bytes / 1e9:.1f} GB"
    return text if event.eta_s is None else f"{text}, {duration(event.eta_s)} left"


def position(event: Progress) -> str:
    """Where a job is: the picture, the step and the time left."""
    text = f"picture {event.image_index + 1} of {event.num_images}, step {event.step} of {event.total}"
    return text if event.eta_s is None else f"{text}, {duration(event.eta_s)} left"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
