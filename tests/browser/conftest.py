"""The real app in its own process, and a real Chromium that looks at it.

`networkidle` never comes (Gradio keeps a stream open), so a page is ready when its last load event says so.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.running_app import running_app

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = os.environ.get("CHROMIUM", shutil.which("chromium") or "/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--force-color-profile=srgb"]
PATIENCE_MS = 60_000
"""For machines that are busy with something else; an idle one needs a fraction."""

HERE = Path(__file__).parent
AXE = HERE / "node_modules" / "axe-core" / "axe.min.js"

Open = Callable[..., "playwright.Page"]


@dataclass(frozen=True)
class Server:
    url: str
    data_dir: Path
    pid: int

    @property
    def engine(self) -> psutil.Process:
        """The process that draws."""
        (engine,) = psutil.Process(self.pid).children()
        return engine

    @property
    def pictures(self) -> list[Path]:
        return sorted((self.data_dir / "images").rglob("*.png"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app on a free port with a folder of its own."""
    data_dir = tmp_path_factory.mktemp("data")
    with running_app(data_dir) as app:
        yield Server(f"{app.url}/", data_dir, app.pid)


@pytest.fixture(scope="session")
def browser() -> Iterator["playwright.Browser"]:
    if not Path(CHROMIUM).exists():
        pytest.skip("no Chromium here; set CHROMIUM to its path")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(server: Server, browser: "playwright.Browser") -> Iterator[Open]:
    """Opens the page in a new browser profile, or in that of another page (`beside`); no script error is tolerated."""
    contexts, errors = [], []

    def open_one(width: int = 1280, dark: bool = False, beside: "playwright.Page | None" = None) -> "playwright.Page":
        context = (
            beside.context
            if beside
            else browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if dark else "light",
                accept_downloads=True,
            )
        )
        context.set_default_timeout(PATIENCE_MS)
        playwright.expect.set_options(timeout=PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url, wait_until="domcontentloaded")
        wait_until_ready(page)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def page(open_page: Open) -> "playwright.Page":
    return open_page()


def wait_until_ready(page: "playwright.Page") -> None:
    page.wait_for_selector("body[data-ready='1']")


def open_tab(page: "playwright.Page", name: str) -> None:
    """Go to a tab, wherever a narrow page keeps it."""
    tab = page.get_by_role("tab", name=name)
    if not tab.is_visible():
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown").get_by_text(name)
    tab.click()


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's script, fetched once through npm into a folder that git ignores."""
    if not AXE.exists() and shutil.which("npm"):
        command = ["npm", "install", "--prefix", str(HERE), "--no-save", "--no-package-lock", "axe-core@4"]
        subprocess.run(command, capture_output=True, timeout=120, check=False)
    if not AXE.exists():
        pytest.skip("axe-core is not here and npm could not fetch it")
    return AXE.read_text(encoding="utf-8")


GRADIOS_OWN = [['button[aria-label="common.upload"]']]
"""What we cannot mend: above uploaded files, Gradio 6 puts one button into another."""


def serious(page: "playwright.Page", axe: str) -> list[str]:
    page.evaluate(axe)
    looked_at = {"exclude": GRADIOS_OWN}
    found = page.evaluate("what => axe.run(what, {resultTypes: ['violations']})", looked_at)["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html']}" for v in found if v["impact"] in ("serious", "critical")]
