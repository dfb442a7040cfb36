"""Everything that is served beside the page itself."""

from starlette.routing import BaseRoute

from studio.services import Services
from studio.web.a1111.api import a1111_routes
from studio.web.health import health_routes
from studio.web.openai.api import openai_routes
from studio.web.own.api import own_routes
from studio.web.page_routes import page_routes


def all_routes(services: Services) -> list[BaseRoute]:
    """Pictures and files by their unguessable ids, health, and the interfaces for other programs."""
    return [
        *page_routes(services),
        *health_routes(services),
        *own_routes(services),
        *openai_routes(services),
        *a1111_routes(services),
    ]
