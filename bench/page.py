"""How long a person waits: for the page after `python app.py`, and for a picture after a click, in real Chromium.

`python bench/page.py --repeats 8` (needs requirements-dev.txt and Chromium). The first click comes as soon as the page
is up, and may meet a model that is still loading.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a yellow heart above a purple square on a navy background"
CHROMIUM = os.environ.get("CHROMIUM", shutil.which("chromium") or "/usr/bin/chromium")


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=8)
    options = parser.parse_args()
    started = time.perf_counter()
    environment = {**os.environ, "FLASH_STUDIO_DATA_DIR": tempfile.mkdtemp(), "FLASH_STUDIO_OFFLINE": "1"}
    app = subprocess.Popen(
        [sys.executable, "app.py", "--port", "0"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert app.stdout
        said = re.search(r"http://\S+", app.stdout.readline())
        assert said, "the page did not come up"
        with urllib.request.urlopen(said[0]) as answer:
            assert answer.status == 200
        page_s = time.perf_counter() - started
        with sync_playwright() as driver:
            chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            page = chromium.new_page()
            page.goto(said[0])
            page.wait_for_selector("body[data-ready='1']")
            first_s, *later = [click_to_picture(page) for _ in range(options.repeats + 1)]
            chromium.close()
    finally:
        app.terminate()
        app.wait(60)
    print("| from … to … | s | n |\n|---|---|---|")
    print(f"| `python app.py` to the page answering | {page_s:.1f} | 1 |")
    print(f"| the first click to the picture | {first_s:.1f} | 1 |")
    print(
        f"| a later click to the picture | {statistics.median(later):.1f} (at most {max(later):.1f}) | {len(later)} |"
    )


def click_to_picture(page: Page) -> float:
    """Ask for the prompt with a new seed; seconds until the finished picture is on the stage."""
    page.fill("#prompt textarea", PROMPT)
    before = page.get_attribute(".stage-open img", "src")
    started = time.perf_counter()
    page.click("#generate")
    page.wait_for_function(
        """before => {
            const image = document.querySelector("#stage .stage-open img");
            const phase = document.querySelector("#stage .stage").dataset.phase;
            const source = image.getAttribute("src") || "";
            return phase === "done" && source.startsWith("pictures/") && source !== before;
        }""",
        arg=before,
        timeout=120_000,
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
