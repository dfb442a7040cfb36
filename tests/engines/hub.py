"""A hub on this machine: the addresses that huggingface_hub asks for, over real HTTP, with faults to order."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

BLOCK = 1 << 15
_LFS_SUFFIXES = (".safetensors", ".bin", ".ckpt", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it came."""

    host: str
    path: str
    range: str | None
    authorization: str | None


@dataclass(kw_only=True)
class Faults:
    """What goes wrong. Sizes are in bytes of large files, over the whole life of the hub."""

    gated: set[str] = field(default_factory=set)
    statuses: list[int] = field(default_factory=list)
    """Answered first, one a request."""
    status: int | None = None
    """Answered to everything."""
    cut_after: int | None = None
    """The connection breaks there, and again at every later request while `stays_cut`."""
    stays_cut: bool = False
    pause_s: float = 0.0
    """Before every block of a large file."""
    hangs: bool = False
    flipped: str | None = None
    """The path of a file whose last byte comes changed."""
    ignores_ranges: bool = False
    foreign_links: bool = False
    """The rest of a listing is said to be at another host."""
    portal: bool = False
    """A login page answers instead."""


class FakeHub:
    """Repositories are `{"owner/name": {path: contents}}`; a key may begin with `datasets/` and end in `@revision`."""

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        self.repositories = dict(repositories)
        self.faults = Faults()
        self.asked: list[Asked] = []
        self.large_bytes = 0
        self.over = threading.Event()
        self.endpoint = ""
        self.edition = ""
        """Part of what every commit is named after."""
        self.private: dict[str, bool] = {}
        """Repositories that were made, and whether only their owners may see them."""
        self.page = 1000
        """Files in one answer of a listing."""

    def commit(self, key: str) -> str:
        """The commit tells the revisions of a name apart."""
        return hashlib.sha1(f"{key}{self.edition}".encode()).hexdigest()

    def key(self, commit: str) -> str | None:
        """The repository and revision whose commit it is."""
        return next((key for key in self.repositories if self.commit(key) == commit), None)

    def large_paths(self) -> list[str]:
        """The large files that were asked for, in order, by their paths."""
        return [ask.path.partition("/resolve/")[2].partition("/")[2] for ask in self.asked if is_large(ask.path)]


def forget_the_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """No login, cache or proxy of whoever runs the tests; what is written instead goes to `folder`."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def use(monkeypatch: pytest.MonkeyPatch, hub: "FakeHub") -> None:
    """Let `hub` be the usual one in this process, as HF_ENDPOINT does before the library is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


@contextmanager
def served(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[FakeHub]:
    """Run a hub while the block lasts."""
    hub = FakeHub(repositories)

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = _Server(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def is_large(path: str) -> bool:
    return "/resolve/" in path and path.endswith(_LFS_SUFFIXES)


def blob_id(contents: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(contents) + contents).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = Asked(
            host=self.headers["Host"],
            path=path,
            range=self.headers["Range"],
            authorization=self.headers["Authorization"],
        )
        self.hub.asked.append(asked)
        faults = self.hub.faults
        if faults.hangs:
            self.hub.over.wait()
            self.close_connection = True
        elif faults.portal:
            self._answer(200, b"<html>Welcome to the hotel</html>", {"Content-Type": "text/html"})
        elif faults.statuses or faults.status:
            self._answer(faults.statuses.pop(0) if faults.statuses else faults.status or 0)
        elif path.startswith("/cdn/"):
            self._large(path)
        elif path.startswith("/api/datasets/") and "/tree/" in path:
            self._tree(path.removeprefix("/api/"))
        elif path.startswith("/api/"):
            self._list(path.removeprefix("/api/").removeprefix("models/"))
        else:
            self._resolve(path)

    def do_POST(self) -> None:
        """What an upload asks for. Every file is taken as a small one, whose contents come with the commit."""
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        asked = Asked(host=self.headers["Host"], path=path, range=None, authorization=self.headers["Authorization"])
        self.hub.asked.append(asked)
        if self.hub.faults.status:
            self._answer(self.hub.faults.status)
        elif path == "/api/repos/create":
            values = json.loads(body)
            name = f"{values['organization']}/{values['name']}"
            self.hub.private[name] = bool(values.get("private")) or values.get("visibility") == "private"
            self._answer(200, json.dumps({"url": f"{self.hub.endpoint}/{name}"}).encode())
        elif path == "/api/validate-yaml":
            self._answer(200, b'{"warnings": [], "errors": []}')
        elif "/preupload/" in path:
            told = {"uploadMode": "regular", "shouldIgnore": False}
            rows = [{"path": file["path"], **told} for file in json.loads(body)["files"]]
            self._answer(200, json.dumps({"files": rows}).encode())
        else:
            self._commit(path.removeprefix("/api/models/").partition("/commit/")[0], body)

    def _commit(self, name: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        files = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
        self.hub.repositories[name] = {path: base64.b64decode(content) for path, content in files.items()}
        about = {"commitUrl": f"{self.hub.endpoint}/{name}/commit/1", "commitOid": self.hub.commit(name)}
        self._answer(200, json.dumps(about).encode())

    def _list(self, path: str) -> None:
        name, _, revision = path.partition("/revision/")
        key = f"{name}@{revision}" if revision else name
        if key not in self.hub.repositories:
            is_known = any(known.partition("@")[0] == name for known in self.hub.repositories)
            self._answer(404, headers={"X-Error-Code": "RevisionNotFound" if is_known else "RepoNotFound"})
            return
        siblings = [_sibling(name, contents) for name, contents in self.hub.repositories[key].items()]
        answer = {"id": name.removeprefix("datasets/"), "sha": self.hub.commit(key), "siblings": siblings}
        self._answer(200, json.dumps(answer).encode())

    def _tree(self, path: str) -> None:
        name, _, commit = path.partition("/tree/")
        key = self.hub.key(commit)
        if key is None or key.partition("@")[0] != name:
            self._answer(404, headers={"X-Error-Code": "RevisionNotFound"})
            return
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        end = start + self.hub.page
        files = sorted(self.hub.repositories[key].items())
        headers = {}
        if end < len(files):
            host = "http://elsewhere.invalid" if self.hub.faults.foreign_links else self.hub.endpoint
            headers["Link"] = f'<{host}{urlsplit(self.path).path}?recursive=true&cursor={end}>; rel="next"'
        rows = [{"type": "directory", "path": "folder", "oid": "0" * 40, "size": 0}] if start == 0 else []
        rows += [_entry(path, contents) for path, contents in files[start:end]]
        self._answer(200, json.dumps(rows).encode(), headers)

    def _resolve(self, path: str) -> None:
        name, _, rest = path.removeprefix("/").partition("/resolve/")
        commit, _, file = rest.partition("/")
        key = self.hub.key(commit)
        if name in self.hub.faults.gated:
            self._answer(401, headers={"X-Error-Code": "GatedRepo"})
        elif key is None or file not in self.hub.repositories[key]:
            self._answer(404, headers={"X-Error-Code": "EntryNotFound"})
        elif is_large(path):  # as the hub does: large files lie at another host, which must not see the token
            there = self.hub.endpoint.replace("127.0.0.1", "localhost")
            self._answer(302, headers={"Location": f"{there}/cdn/{commit}/{file}?Signature=sealed"})
        else:
            contents = self._contents(key, file)
            part = self._part(len(contents))
            self._answer(200 if part == slice(0, len(contents)) else 206, contents[part])

    def _large(self, path: str) -> None:
        commit, _, file = path.removeprefix("/cdn/").partition("/")
        key = self.hub.key(commit)
        assert key is not None
        contents = self._contents(key, file)
        part = self._part(len(contents))
        is_part = part != slice(0, len(contents))
        self.send_response(206 if is_part else 200)
        self.send_header("Content-Length", str(part.stop - part.start))
        if is_part:
            self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{len(contents)}")
        self.end_headers()
        self._pour(contents[part])

    def _part(self, size: int) -> slice:
        """What is asked for of `size` bytes."""
        if not self.headers["Range"] or self.hub.faults.ignores_ranges:
            return slice(0, size)
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        return slice(int(first), int(last) + 1 if last else size)

    def _pour(self, contents: bytes) -> None:
        faults = self.hub.faults
        for start in range(0, len(contents), BLOCK):
            if faults.cut_after is not None and self.hub.large_bytes >= faults.cut_after:
                faults.cut_after = faults.cut_after if faults.stays_cut else None
                self.close_connection = True
                return
            if faults.pause_s:
                self.hub.over.wait(faults.pause_s)
            block = contents[start : start + BLOCK]
            try:
                self.wfile.write(block)
            except OSError:  # nobody listens any more
                self.close_connection = True
                return
            self.hub.large_bytes += len(block)

    def _contents(self, key: str, file: str) -> bytes:
        contents = self.hub.repositories[key][file]
        return contents[:-1] + bytes([contents[-1] ^ 1]) if self.hub.faults.flipped == file else contents

    def _answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _entry(path: str, contents: bytes) -> dict[str, Any]:
    """A file as a listing of a data set tells of it."""
    row: dict[str, Any] = {"type": "file", "path": path, "size": len(contents), "oid": blob_id(contents)}
    if path.endswith(_LFS_SUFFIXES):
        row["lfs"] = {"oid": hashlib.sha256(contents).hexdigest(), "size": len(contents), "pointerSize": 134}
    return row


def _sibling(path: str, contents: bytes) -> dict[str, Any]:
    row: dict[str, Any] = {"rfilename": path, "size": len(contents), "blobId": blob_id(contents)}
    if path.endswith(_LFS_SUFFIXES):
        sha256 = hashlib.sha256(contents).hexdigest()
        row |= {"blobId": "0" * 40, "lfs": {"sha256": sha256, "size": len(contents), "pointerSize": 134}}
    return row
