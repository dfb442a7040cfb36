"""A server on loopback that speaks Groq's chat API, and misbehaves as told."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

KEY = "gsk_canary_0123456789"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A response; `body` is sent as JSON unless it is bytes. `drop` breaks the connection instead; `pause` waits for
    the test to be over before the body, and `byte_s` seconds before each of its bytes."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    pause: bool = False
    byte_s: float = 0.0


def said(text: str | None, finish: str = "stop", **more: Any) -> Reply:
    """A good answer."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    return Reply(body={"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage, **more})


def problem(status: int, message: str = "no", code: str = "", **headers: str) -> Reply:
    """What Groq says when something is wrong."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    error = {"message": message, "type": "error", "code": code}
    return Reply(status=status, body={"error": error}, headers=names)


def picture_in(request: dict[str, Any]) -> bytes:
    """The picture that a request asks about."""
    parts = request["messages"][-1]["content"]
    url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    return base64.b64decode(url.partition("base64,")[2])


def opened(request: dict[str, Any]) -> Image.Image:
    """The same, to look at."""
    return Image.open(io.BytesIO(picture_in(request))).convert("RGB")


@dataclass
class GroqServer:
    """`answer(request, place)` gives the reply to the request of that place, counted from 0."""

    models: list[str] = field(default_factory=lambda: ["openai/gpt-oss-20b", "qwen/qwen3.6-27b"])
    key: str = KEY
    answer: Callable[[dict[str, Any], int], Reply] = lambda request, place: said("An answer.")
    requests: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, path: str, key: str, request: dict[str, Any] | None) -> Reply:
        if key != f"Bearer {self.key}":
            return problem(401, f"Invalid API Key {key.removeprefix('Bearer ')}", "invalid_api_key")
        if path == "/openai/v1/models":
            return Reply(body={"object": "list", "data": [{"id": each, "object": "model"} for each in self.models]})
        if path != "/openai/v1/chat/completions" or request is None:
            return problem(404, "Unknown request URL", "unknown_url")
        with self.lock:
            place = len(self.requests)
            self.requests.append(request)
        if request["model"] not in self.models:
            return problem(404, f"The model `{request['model']}` does not exist", "model_not_found")
        return self.answer(request, place)


def _handler(server: GroqServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._give(server.reply(self.path, self.headers.get("Authorization", ""), None))

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            request = json.loads(self.rfile.read(length))
            self._give(server.reply(self.path, self.headers.get("Authorization", ""), request))

        def _give(self, reply: Reply) -> None:
            if reply.drop:
                self.close_connection = True
                self.connection.close()
                return
            data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if reply.pause:
                    server.over.wait(30)
                for place in range(len(data)) if reply.byte_s else ():
                    self.wfile.write(data[place : place + 1])
                    self.wfile.flush()
                    if server.over.wait(reply.byte_s):
                        return
                if not reply.byte_s:
                    self.wfile.write(data)
            except OSError:  # who asked has gone
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def groq_server(**settings: Any) -> Iterator[GroqServer]:
    """Run one for as long as the test lasts."""
    server = GroqServer(**settings)
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    http.handle_error = lambda request, client_address: None  # who breaks off is no concern of a test's output
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        http.shutdown()
        http.server_close()
        thread.join(5)
