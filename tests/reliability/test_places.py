"""S3 and S9: whatever a name or an address says, nothing outside is read and nobody is asked for anything."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import pytest

from studio.services import open_services
from studio.settings import Settings
from studio.web.access import new_token
from tabs import shell
from tabs.launch import launch
from tests.reliability.conftest import Score
from tests.tabs.conftest import no_leaked_event_loops  # noqa: F401  (a fixture)
from tests.tabs.pages import free_port
from tests.tabs.test_authorisation import _answer
from tests.tabs.test_authorisation_routes import routes_of, things
from tests.watched_names import watched_names

# Gradio asks pandas for an option that pandas 3 deprecates.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.future.no_silent_downcasting:DeprecationWarning")]

SECRET = "canary of a secret file 5b1c"
INSIDE = ("SQLite format 3", "root:x:0:0", SECRET)
"""How what must not be served begins: our database, a file of every machine, ours outside of every folder."""
PASSWORD = "a password for guests"
ASKED = ("/api/v1/jobs", "/v1/images/generations", "/sdapi/v1/txt2img", "/sdapi/v1/img2img")
NOT_WALKED = ("heartbeat", "queue/data", "/stream/", "/call/", "/events", "{session_hash}")
"""What goes on for as long as one listens, or is named by random numbers of Gradio's own."""


def names_of(outside: Path, data: Path) -> list[str]:
    """Names that lead out of a folder where they are taken for a path, written as paths are written anywhere."""
    up, plain = "../" * 12, str(outside)
    relative = up + plain.lstrip("/")
    return [
        plain, "/" + plain, "//" + plain, relative, "./" + relative, up + "etc/passwd", "/etc/passwd", "//etc/passwd",
        "../studio.db", "../../studio.db", "..", ".", "./", "...", "....//....//....//etc/passwd", "..;/..;/etc/passwd",
        relative.replace("/", "%2f"), relative.replace(".", "%2e").replace("/", "%2f"), relative.replace("/", "%252f"),
        relative.replace("/", "%c0%af"), relative.replace("/", "\\"), relative.replace("/", "%5c"), "..%00/" + plain,
        plain + "%00", plain + "%00.png", "x%00/../../studio.db", ".env", ".hidden", "%2eenv", str(data / ".hidden"),
        str(data / "studio.db"), f"{data}/images/../studio.db", "file://" + plain, "file:///etc/passwd",
        "file:" + plain, "C:\\Windows\\win.ini", "C:/Windows/win.ini", "\\\\127.0.0.1\\c$\\x", "\\\\?\\C:\\x", "CON",
        "NUL.png", "~/.bashrc", "$HOME/.bashrc", "link", "link.png", "link/secret.txt", "/proc/self/environ",
        "/proc/self/root" + plain, "/dev/stdin", "x" * 300, "images/link.png", "adapters/link",
    ]  # fmt: skip


@dataclass(frozen=True)
class Studio:
    """A page for others that is up, the folder behind it, and what a visitor of it has."""

    page: gr.Blocks
    data: Path
    outside: Path
    token: str
    known: dict[str, str]

    def send(self, method: str, target: str, body: object = None) -> tuple[int, str]:
        """Ask for exactly this, as no client that tidies addresses up would."""
        place = urlsplit(self.page.local_url)
        headers = {"Authorization": f"Bearer {PASSWORD}", "X-Flash-Visitor": self.token}
        content = None if body is None else json.dumps(body).encode()
        headers |= {} if body is None else {"Content-Type": "application/json"}
        with closing(http.client.HTTPConnection(place.hostname, place.port, timeout=30)) as connection:
            connection.putrequest(method, _sendable(target), skip_accept_encoding=True)
            for name, value in {**headers, "Content-Length": str(len(content or b""))}.items():
                connection.putheader(name, value)
            connection.endheaders(content)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("latin-1")

    def bodies(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Everything that one can ask for, with `name` wherever something is called by a name."""
        usual = {"kind": "generate", "prompt": "a red circle"}
        for field in ("checkpoint", "accelerator", "scheduler", "style", "init_image", "mask", "control_image"):
            yield ASKED[0], {**usual, field: name}
        for prompt in (f"a circle <lora:{name}:1>", f"a __{name}__ circle"):
            yield ASKED[0], {**usual, "prompt": prompt}
        yield ASKED[0], {"kind": "flash", "prompts": ["x"], "accelerator": name, "checkpoint": name}
        yield ASKED[0], {"kind": "evaluate", "systems": [{"checkpoint": name}], "prompts": [{"text": "x"}]}
        yield ASKED[0], {"kind": "train", "name": "x", "folder": name}
        yield ASKED[0], {"kind": "distil", "name": "x", "pictures": name, "captions": name}
        yield ASKED[1], {"prompt": "x", "model": name}
        yield ASKED[3], {"prompt": "x", "init_images": [name]}
        yield ASKED[3], {"prompt": "x", "init_images": ["AAAA"], "mask": name}
        yield "/sdapi/v1/png-info", {"image": name}
        yield "/sdapi/v1/options", {"sd_model_checkpoint": name}


def _sendable(target: str) -> str:
    """Without what no request line can hold; everything else as it is."""
    return "".join(sign for sign in target if 32 < ord(sign) < 127)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    place = tmp_path_factory.mktemp("place")
    outside, data = place / "secret.txt", place / "data"
    outside.write_text(SECRET)
    limits = {name: 0 for name in ("max_queued_each", "max_jobs_per_minute_each", "max_pictures_per_day_each")}
    settings = Settings(
        data_dir=data, offline=True, mode="shared", password=PASSWORD, port=free_port(), max_queued=100_000, **limits
    )
    with open_services(settings) as services:
        services.runner.stop(timeout=10)
        services.trainer.stop(timeout=10)
        token = new_token()
        known = {part: name() for part, name in things(services, token).items()}
        for link in ("images/link.png", "adapters/link.safetensors", "adapters/link.png", "wildcards/link.txt",
                     "models/link", "runs/link", "judges/link", "sources/link"):  # fmt: skip
            (data / link).parent.mkdir(exist_ok=True)
            (data / link).symlink_to(outside if "." in Path(link).name else place)
        preview = services.adapters.store.preview_path("Moons")
        assert preview is not None
        known["preview"] = str(preview)
        for dotted in (data, data / "images", data / "adapters"):
            (dotted / ".hidden").write_text(SECRET)
        page = shell.build(services)
        launch(page, services)
        try:
            yield Studio(page, data, outside, token, known)
        finally:
            page.close()


def walked(page: gr.Blocks) -> list[tuple[str, str]]:
    found = [(method, path) for method, path in routes_of(page.app.routes) if "{" in path and method == "GET"]
    return [(method, path) for method, path in found if not any(part in path for part in NOT_WALKED)]


def test_no_name_leads_out_of_what_is_served(studio: Studio, score: Score) -> None:
    names, tried = names_of(studio.outside, studio.data), 0
    routes = walked(studio.page)
    assert len(names) >= 40 and len(routes) > 20
    for name in names:
        for method, path in routes:
            status, told = studio.send(method, filled(studio, path, name))
            refuse_leak(name, path, status, told)
            tried += 1
        for path, body in studio.bodies(name):
            status, told = studio.send("POST", path, body)
            refuse_leak(name, f"{path} {body}", status, told)
            tried += 1
    score(inputs=tried)


def filled(studio: Studio, path: str, name: str) -> str:
    """A route with `name` in its last place, and what is there in those before it."""
    *parts, last = path.split("{")
    whole = last.partition("}")[2]
    before = parts[0]
    for part in parts[1:]:
        key, _, rest = part.partition("}")
        key = key.partition(":")[0]
        before += studio.known.get(key) or studio.known.get(f"{path.split('/')[1]} {key}") or "1"
        before += rest
    return f"{before}{name}{whole}"


def refuse_leak(name: str, asked: str, status: int, told: str) -> None:
    assert not any(sign in told for sign in INSIDE), (name, asked, status, told[:300])
    is_gradios = asked.startswith(("/gradio_api", "/static", "/assets", "/svelte", "/custom", "/pwa", "/monitoring"))
    assert status < 500 or status == 503 or is_gradios, (name, asked, status, told[:300])


def test_a_link_in_a_folder_of_ours_is_not_followed_out(studio: Studio, score: Score) -> None:
    """Somebody put it there by hand, or unpacked something."""
    sample = studio.known["run_id"]
    places = [
        (studio.data / "runs" / sample / "samples" / "x.png", f"/runs/{sample}/samples/x.png"),
        (Path(studio.known["preview"]), "/adapters/Moons/preview"),
        (Path(studio.known["path_or_url"]), f"/pictures/{studio.known['image_id']}.png"),
    ]
    for path, address in places:
        path.unlink(missing_ok=True)
        path.symlink_to(studio.outside)
        status, told = studio.send("GET", address)
        assert SECRET not in told and status in (404, 403), (address, status, told[:200])
    score(faults=len(places), survived=len(places))


class Listener(ThreadingHTTPServer):
    """Says yes to everything, and counts."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Listener)
        self.server.asked.append(self.path)
        self.send_response(302 if self.path.startswith("/redirect") else 200)
        self.send_header("Location", "/again.png")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    yield server
    server.shutdown()
    server.server_close()


def addresses(port: int, outside: Path) -> list[str]:
    hosts = ("127.0.0.1", "localhost", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "127.1", "0", "0.0.0.0",
             "[::1]", "[::ffff:127.0.0.1]", "a@127.0.0.1", "127.0.0.1.nip.io", "LOCALHOST.")  # fmt: skip
    ours = [f"http://{host}:{port}/x.png" for host in hosts]
    return [
        *ours, f"http://127.0.0.1:{port}/redirect.png", f"HTTP://127.0.0.1:{port}/x", f" http://127.0.0.1:{port}/x",
        f"//127.0.0.1:{port}/x", f"https://127.0.0.1:{port}/x", f"ftp://127.0.0.1:{port}/x", f"http:127.0.0.1:{port}",
        f"gopher://127.0.0.1:{port}/_GET", f"dict://127.0.0.1:{port}/x", f"data:;url,http://127.0.0.1:{port}/x",
        f"file://{outside}", f"file:{outside}", "file://localhost/etc/passwd", "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/", "http://metadata.google.internal/", f"\\\\127.0.0.1@{port}\\x",
    ]  # fmt: skip


def test_no_address_is_asked_for_anything(studio: Studio, listener: Listener, score: Score) -> None:
    tried, fields = 0, {"init_image", "mask", "control_image"}
    for address in addresses(listener.server_port, studio.outside):
        for path, body in studio.bodies(address):
            status, told = studio.send("POST", path, body)
            refuse_leak(address, path, status, told)
            is_picture = fields & set(body) or path.endswith(("img2img", "png-info"))
            assert status in (400, 403, 404, 415, 422) or not is_picture, (address, body, status)
            tried += 1
        for target in (f"/gradio_api/proxy={address}", f"/gradio_api/file={address}", f"/gradio_api/file/{address}"):
            status, told = studio.send("GET", target)
            refuse_leak(address, target, status, told)
            assert status >= 400 or not told, (target, status, told[:200])
            tried += 1
    assert listener.asked == []
    score(inputs=tried)


def test_no_listener_of_the_page_fetches_a_picture(studio: Studio, listener: Listener, score: Score) -> None:
    import httpx

    takes = (gr.Image, gr.File, gr.UploadButton, gr.ImageEditor, gr.Gallery)
    found = [each for each in studio.page.fns.values() if each.fn and any(isinstance(i, takes) for i in each.inputs)]
    assert found
    headers = {"Authorization": f"Bearer {PASSWORD}"}
    asked = (
        f"http://127.0.0.1:{listener.server_port}/x.png", f"http://localhost:{listener.server_port}/redirect.png",
        "http://pictures.example.org/x.png", "https://pictures.example.org/x.png",
    )  # fmt: skip
    client = httpx.Client(base_url=studio.page.local_url, headers=headers, timeout=30)
    with client, watched_names() as heard:
        for address in (*asked, str(studio.outside), f"file://{studio.outside}"):
            file = {"path": address, "url": address, "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}
            for each in found:
                values = [_file(part, file) if isinstance(part, takes) else None for part in each.inputs]
                told = _answer(client, each._id, each, values, "x")
                assert SECRET not in told
    assert listener.asked == [] and heard
    assert not [name for name in heard if "pictures.example.org" in name]
    score(inputs=len(found) * 6)


def _file(part: Any, file: dict[str, Any]) -> Any:
    if isinstance(part, gr.ImageEditor):
        return {"background": file, "layers": [], "composite": file}
    return [{"image": file, "caption": None}] if isinstance(part, gr.Gallery) else file
