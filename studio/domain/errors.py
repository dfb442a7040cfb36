"""Every error that a person is meant to read.

StudioError                 message: what was got and what was expected; hint: what to do now
├── InvalidRequest          a value is out of range or does not fit the others; `field` names the control
├── NotFound                an image, job, checkpoint or file that is not there
├── Incompatible            two things that are fine alone and cannot work together
├── CorruptModel            weights that are damaged, unsafe or not what they claim to be
├── DownloadFailed          weights or a data set that could not be fetched
├── UploadFailed            an adapter that could not be put on the hub
├── OutOfMemory             the machine has less memory than the work needs
├── ChatFailed              a language model that gave no usable answer (studio/domain/chat.py)
├── GenerationFailed        the model made no usable picture (values that are not finite, for example)
├── TrainingFailed          a training that cannot go on
├── DatasetError            pictures and captions that cannot be used
│   └── CaptionsInUse       captions that another process is writing
├── StorageFailed           a folder or database that cannot be read or written
├── QueueFull               too much is waiting already
├── RateLimited             somebody asked for more than their share; `retry_after_s` says when to ask again
└── Unexpected              what none of these foresees; the log has the details (studio/unexpected.py)

`JobCancelled` is not an error: it ends a job that its owner stopped.
"""


class StudioError(Exception):
    """Shown to the user as it is: one sentence that says what happened and one that says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InvalidRequest(StudioError):
    """A value is out of range or does not fit the others; `field` is its name in the request."""

    def __init__(self, message: str, hint: str = "", field: str | None = None) -> None:
        super().__init__(message, hint)
        self.field = field


class NotFound(StudioError):
    """An image, job, checkpoint or file is not there."""


class Incompatible(StudioError):
    """Two things that are fine alone cannot work together."""


class CorruptModel(StudioError):
    """Weights are damaged, unsafe or not what they claim to be."""


class DownloadFailed(StudioError):
    """Weights or a data set could not be fetched."""


class UploadFailed(StudioError):
    """An adapter could not be put on the hub."""


class OutOfMemory(StudioError):
    """The machine has less memory than the work needs."""


class GenerationFailed(StudioError):
    """The model made no usable picture."""


class TrainingFailed(StudioError):
    """A training cannot go on."""


class DatasetError(StudioError):
    """Pictures and captions cannot be used."""


class CaptionsInUse(DatasetError):
    """Another process is writing these captions."""


class StorageFailed(StudioError):
    """A folder or the database cannot be read or written. Where it `may_pass`, as with a disk that is full, nothing is
    wrong with what was to be written: it is enough to try again later."""

    def __init__(self, message: str, hint: str = "", *, may_pass: bool = False) -> None:
        super().__init__(message, hint)
        self.may_pass = may_pass


class QueueFull(StudioError):
    """Too much is waiting already."""


class RateLimited(StudioError):
    """Somebody asked for more than their share; in `retry_after_s` seconds they may ask again."""

    def __init__(self, message: str, hint: str = "", retry_after_s: float = 60.0) -> None:
        super().__init__(message, hint)
        self.retry_after_s = retry_after_s


class Unexpected(StudioError):
    """Nobody foresaw this; whoever asked is told an id, under which the log has the details."""


class JobCancelled(Exception):
    """Raised inside a job, at a step boundary, after its owner asked it to stop."""
