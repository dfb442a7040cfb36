"""What all listeners share: the error boundary, and how a page follows a job."""

import functools
import html
import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import gradio as gr

from studio.domain.errors import StudioError
from studio.domain.events import Event
from studio.job import Job
from studio.unexpected import unexpected

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For a quick listener of ours: no queue, no overlay, no place in the API."""

FORM: dict[str, Any] = {**QUIET, "preprocess": False}
"""For a listener that reads a whole form. Gradio's own checks are off: while another model's limits are on their way to
the page, they would refuse a value that still fits what is seen. The request makes the same checks, in our words."""

SLOW: dict[str, Any] = {**FORM, "queue": True, "concurrency_limit": 1}
"""For a listener that reads a form and takes its time; the page tells that it works in words of ours."""

IDLE_S = 1.0
"""How long a follower waits for news before it looks around, in seconds; also how late it notices a closed page."""

Updates = dict[Any, Any]
"""New values by component, for those that change; what a listener with several outputs gives."""

_Handler = TypeVar("_Handler", bound=Callable[..., Any])


def guarded(handler: _Handler) -> _Handler:
    """Show a StudioError as its sentence, and anything else as an id whose details are in the log."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def generator(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from handler(*args, **kwargs)
            except Exception as error:
                raise shown(error) from None

        return generator  # type: ignore[return-value]

    @functools.wraps(handler)
    def function(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            raise shown(error) from None

    return function  # type: ignore[return-value]


def shown(error: Exception) -> gr.Error:
    """The message for a person. Gradio renders it as HTML, hence the escape."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, StudioError):
        return gr.Error(html.escape(str(error)), print_exception=False, title="This did not work")
    return gr.Error(str(unexpected(error)), print_exception=False)


def moments(job: Job, previews: bool = True) -> Iterator[Event | None]:
    """The events of a job, with a None whenever nothing came for a second. Ends with the job, or when the studio stops.

    The pauses matter: Gradio can close a generator, whose page is gone, only while it yields.
    """
    after = -1
    while True:
        asked_at = time.monotonic()
        for event in job.events(after, timeout=IDLE_S, previews=previews):
            after = event.index
            yield event
        if job.is_over or time.monotonic() - asked_at < IDLE_S / 2:
            return
        yield None
