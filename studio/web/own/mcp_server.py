"""The calls as tools of the Model Context Protocol, over streamable HTTP (requirements-mcp.txt).

Gradio could serve them itself, but draws pictures anew, without their recipes, and asks itself without the password
(docs/decisions/0018). Here a tool is the same call, by whoever sends the request.
"""

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from studio import __version__
from studio.domain.errors import InvalidRequest, JobCancelled, NotFound
from studio.domain.images import ImageRecord
from studio.services import Services
from studio.web.bodies import Bounded
from studio.web.own.calls import Call, Replies, Reply, offered
from studio.web.refusals import told

if TYPE_CHECKING:
    from mcp import types
    from mcp.server.lowlevel import Server

PATH = "/gradio_api/mcp"
"""Where Gradio's own would be: who knows its apps looks there, and its compression leaves streams there alone."""
MOST_PICTURES = 4
"""Pictures in one answer; what is told has the addresses of all."""
_ABOUT = (
    "A studio that draws pictures from words. Begin with models, to see which there are and what suits them; generate "
    "draws. Addresses of pictures are on this server."
)


@dataclass(frozen=True, kw_only=True)
class McpServer:
    """What is served, and what has to run meanwhile."""

    routes: list[BaseRoute]
    lifespan: Callable[[Any], AbstractAsyncContextManager[None]]


def mcp_server(services: Services) -> McpServer:
    """The tools of this studio.

    Raises:
        InvalidRequest: the package for it is not installed.
    """
    if find_spec("mcp") is None:
        raise InvalidRequest(
            "FLASH_STUDIO_MCP is set, and the package that MCP needs is not installed.",
            "pip install -r requirements-mcp.txt, or leave it unset.",
            "mcp",
        )
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    manager = StreamableHTTPSessionManager(_server(services), stateless=True)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncGenerator[None]:
        async with manager.run():
            yield

    app, methods = Bounded(manager.handle_request), ["GET", "POST", "DELETE"]
    routes: list[BaseRoute] = [Route(path, app, methods=methods) for path in (PATH, f"{PATH}/")]
    return McpServer(routes=routes, lifespan=lifespan)


def _server(services: Services) -> "Server[Any, Any]":
    from mcp import types
    from mcp.server.lowlevel import Server

    server: Server[Any, Any] = Server("Flash Studio", version=__version__, instructions=_ABOUT)
    calls = {call.name: call for call in offered(services)}

    @server.list_tools()
    async def list_tools() -> list[types.Tool]:  # pyright: ignore[reportUnusedFunction]
        return [_tool(call) for call in calls.values()]

    @server.call_tool(validate_input=False)  # what is wrong is told in our own words
    async def call_tool(name: str, values: dict[str, Any]) -> types.CallToolResult:  # pyright: ignore[reportUnusedFunction]
        try:
            if name not in calls:
                raise NotFound(f"There is no tool called {name!r}.", f"There are: {', '.join(calls)}.")
            reply = await _last(server, calls[name].replies(services, _request(server), values))
            return await run_in_threadpool(_result, services, reply)
        except Exception as error:
            return types.CallToolResult(content=[_text(str(told(error)))], isError=True)

    return server


def _tool(call: Call) -> "types.Tool":
    from mcp import types

    hints = types.ToolAnnotations(
        title=call.name.replace("_", " ").capitalize(), readOnlyHint=not call.changes, destructiveHint=False,
        openWorldHint=False,
    )  # fmt: skip
    return types.Tool(name=call.name, description=call.description, inputSchema=call.schema, annotations=hints)


def _request(server: "Server[Any, Any]") -> Request:
    request: Request | None = server.request_context.request
    assert request is not None, "over HTTP there is one"
    return request


async def _last(server: "Server[Any, Any]", replies: Replies) -> Reply:
    """The answer. Those before it are told as progress, to who wants that.

    Raises:
        StudioError: as the call does.
        JobCancelled: the studio stops, or whoever asked is not there any more.
    """
    request, last = _request(server), None
    async with aclosing(replies):
        async for count, reply in _counted(replies):
            if await request.is_disconnected():
                raise JobCancelled
            await _tell(server, count, _words(reply))
            last = reply
    assert last is not None, "every call tells something"
    return last


async def _counted(replies: Replies) -> AsyncIterator[tuple[int, Reply]]:
    count = 0
    async for reply in replies:
        yield count, reply
        count += 1


async def _tell(server: "Server[Any, Any]", count: int, words: str) -> None:
    context = server.request_context
    token = context.meta.progressToken if context.meta else None
    if token is not None and words:
        await context.session.send_progress_notification(
            token, float(count), message=words, related_request_id=str(context.request_id)
        )


def _words(reply: Reply) -> str:
    """How far it is, in a few words; "" for what is no such thing."""
    stands = reply.told
    if held := stands.get("held"):
        return f"Waiting. {held['message']} {held['hint']}"
    if progress := stands.get("progress"):
        return (
            f"Step {progress['step']} of {progress['total']}, {progress['image_index'] + 1} of {progress['num_images']}"
        )
    if download := stands.get("download"):
        return f"Fetching the model: {download['done_bytes']:,} of {download['total_bytes']:,} bytes"
    return f"{stands['ahead']} jobs come before" if stands.get("state") == "queued" else ""


def _result(services: Services, reply: Reply) -> "types.CallToolResult":
    """What is told, for people and models and, the same, for programs; and the files of the first pictures."""
    from mcp import types

    shown: list[types.ContentBlock] = [_picture(services, record) for record in reply.pictures[:MOST_PICTURES]]
    text = _text(json.dumps(reply.told, ensure_ascii=False))
    return types.CallToolResult(content=[text, *shown], structuredContent=reply.told)


def _text(words: str) -> "types.TextContent":
    from mcp import types

    return types.TextContent(type="text", text=words)


def _picture(services: Services, record: ImageRecord) -> "types.ImageContent":
    """The file as it is, with the recipe inside."""
    from mcp import types

    data = base64.b64encode(services.gallery.path(record).read_bytes()).decode()
    return types.ImageContent(type="image", data=data, mimeType="image/png")
