"""Use the tools of a studio that is up (`FLASH_STUDIO_MCP=1`), as a language model's program does (`pip install mcp`):

python examples/mcp_client.py [ADDRESS [PASSWORD]]
"""

import asyncio
import base64
import json
import secrets
import sys
from pathlib import Path

import httpx
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import ImageContent, TextContent

address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
headers = {"X-Flash-Visitor": secrets.token_urlsafe(24)}  # who you are: with the same one you find your jobs again
if len(sys.argv) > 2:
    headers["Authorization"] = f"Bearer {sys.argv[2]}"


async def main() -> None:
    async with (
        httpx.AsyncClient(headers=headers, timeout=300) as http,
        streamable_http_client(f"{address.rstrip('/')}/gradio_api/mcp/", http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        print("Tools:", *(tool.name for tool in (await session.list_tools()).tools))
        values = {"prompt": "a large red circle on a white background", "num_inference_steps": 12, "seed": 7}
        for said in (await session.call_tool("generate", values)).content:
            if isinstance(said, TextContent):
                print("Guidance", json.loads(said.text)["pictures"][0]["recipe"]["guidance_scale"])
            if isinstance(said, ImageContent):
                Path("tool.png").write_bytes(base64.b64decode(said.data))  # with its recipe inside


asyncio.run(main())
