"""Flash Studio's services: requests, jobs, ledger, gallery. Never imports Gradio.

The library in three lines, on the same services as the page and the command line:

    from studio import open_services
    with open_services(queue="my-script") as services:
        pictures = services.generate("a red circle on a white background", num_images=2)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.domain.errors import JobCancelled, StudioError
    from studio.domain.images import ImageRecord
    from studio.domain.request import GenerationRequest
    from studio.services import Services, open_services
    from studio.settings import Settings

__version__ = "0.1.0"
__all__ = [
    "GenerationRequest",
    "ImageRecord",
    "JobCancelled",
    "Services",
    "Settings",
    "StudioError",
    "__version__",
    "open_services",
]

_HOMES = {
    "GenerationRequest": "studio.domain.request",
    "ImageRecord": "studio.domain.images",
    "JobCancelled": "studio.domain.errors",
    "Services": "studio.services",
    "Settings": "studio.settings",
    "StudioError": "studio.domain.errors",
    "open_services": "studio.services",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562): `studio.domain` must load without the services."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
