"""Who is looking: a random token that lives in the browser, and what its bearer may do.

Jobs and pictures carry the token's hash: a picture that is passed on must not hand over the key to all the others.
"""

import hashlib
import os
import re
import secrets
from typing import Any

import gradio as gr

from studio.domain.errors import NotFound
from studio.domain.images import ImageRecord
from studio.gallery import Gallery
from studio.settings import Settings

# Not a secret: it keeps the values readable over a restart, for which gradio would pick another key each time.
_STORAGE_KEY = "flash-studio"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22,64}")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def build_browser_state(name: str) -> gr.BrowserState:
    """A value that this browser keeps over reloads and restarts."""
    return gr.BrowserState(storage_key=f"{_STORAGE_KEY}-{name}", secret=_STORAGE_KEY)


def new_token() -> str:
    return secrets.token_urlsafe(24)


def is_token(value: Any) -> bool:
    """Whether `value` could have been made by `new_token`; short ones would be guessable."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def visitor_of(token: Any) -> str:
    """The name under which the bearer of `token` owns jobs and pictures; nobody's for what is no token."""
    return hashlib.sha256(token.encode()).hexdigest()[:32] if is_token(token) else ""


def is_local(settings: Settings) -> bool:
    """Whether only the person at this machine can reach the page, who then owns every picture."""
    return settings.host in _LOOPBACK and not settings.share and "SPACE_ID" not in os.environ


def owner_of(settings: Settings, token: Any) -> str | None:
    """Whose things the bearer of `token` may see: None for everybody's, on a page of their own."""
    return None if is_local(settings) else visitor_of(token)


def own_image(gallery: Gallery, settings: Settings, image_id: str | None, token: Any) -> ImageRecord:
    """A picture that the bearer of `token` may see and change.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    record = gallery.image(image_id or "")
    if is_local(settings) or (is_token(token) and record.visitor == visitor_of(token)):
        return record
    raise NotFound("This picture is not yours.", "Choose one of your own.")
