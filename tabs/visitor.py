"""Who is looking at the page: a random token that lives in the browser (see `studio.web.access`), and what its bearer
may see."""

from typing import Any

import gradio as gr

from studio.domain.errors import NotFound
from studio.domain.images import ImageRecord
from studio.gallery import Gallery
from studio.settings import Settings
from studio.web.access import is_token, visitor_of

# Not a secret: it keeps the values readable over a restart, for which gradio would pick another key each time.
_STORAGE_KEY = "flash-studio"


def build_browser_state(name: str) -> gr.BrowserState:
    """A value that this browser keeps over reloads and restarts."""
    return gr.BrowserState(storage_key=f"{_STORAGE_KEY}-{name}", secret=_STORAGE_KEY)


def owner_of(settings: Settings, token: Any) -> str | None:
    """Whose things the bearer of `token` may see: None for everybody's, on a page of their own."""
    return None if settings.is_local else visitor_of(token)


def own_image(gallery: Gallery, settings: Settings, image_id: str | None, token: Any) -> ImageRecord:
    """A picture that the bearer of `token` may see and change.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    record = gallery.image(image_id or "")
    if settings.is_local or (is_token(token) and record.visitor == visitor_of(token)):
        return record
    raise NotFound("This picture is not yours.", "Choose one of your own.")


def check_may_delete(settings: Settings) -> None:
    """Raises NotFound where nobody deletes anything."""
    if not settings.may_delete:
        raise NotFound("Nothing is deleted here.", "Ask whoever hosts this studio.")
