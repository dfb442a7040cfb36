"""What Gradio keeps of a page that was opened: a copy of every component, one and a half megabytes. It forgets none of
them by itself until there are so many that the machine is full, so pages that were closed are forgotten here."""

import threading
from collections import deque
from datetime import datetime, timedelta

import gradio as gr

MOST_SESSIONS = 300
"""Of pages that are open, or were never closed as a browser does; the one that was idle longest goes first."""
KEPT_CLOSED = 16
"""Of pages that were closed: a browser that only lost the connection comes back to its own."""

CLOSING = timedelta(seconds=1)
"""Gradio itself looks at a session once more after it told that its page was closed."""


class ClosedPages:
    """Forgets the sessions of pages that were closed, but for the last few."""

    def __init__(self, demo: gr.Blocks) -> None:
        self._demo = demo
        self._closed: deque[tuple[str, datetime]] = deque()
        self._lock = threading.Lock()

    def on_close(self, request: gr.Request) -> None:
        """A browser closed the page of that request, or lost the connection."""
        with self._lock:
            self._closed.append((str(request.session_hash), datetime.now()))
            while len(self._closed) > KEPT_CLOSED:
                self._forget(*self._closed.popleft())

    def _forget(self, session: str, closed_at: datetime) -> None:
        holder = self._demo.state_holder
        used_at = holder.time_last_used.get(session, closed_at)
        if used_at - closed_at < CLOSING:  # it did not come back
            with holder.lock:
                holder.session_data.pop(session, None)
                holder.time_last_used.pop(session, None)
