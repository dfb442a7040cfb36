"""Whose GPU time counts on a Space with ZeroGPU, where somebody asks over HTTP rather than on the page."""

import gradio as gr
from gradio.context import LocalContext
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send


class ZeroGpuCaller:
    """ASGI middleware that puts each request where Gradio puts those of its own events, in the context: the package
    `spaces` reads from it the token that Hugging Face gives to everybody who asks. Without, all of them together would
    have the little that a Space has for itself."""

    def __init__(self, app: ASGIApp, blocks: gr.Blocks) -> None:
        self._app = app
        self._blocks = blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            LocalContext.request.set(gr.Request(Request(scope)))
            LocalContext.blocks.set(self._blocks)
        await self._app(scope, receive, send)
