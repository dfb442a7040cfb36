"""S10, S11 and S12: text of anybody is text, settings of anybody are settings, and what is run was chosen by us."""

import ast
import csv
import importlib.metadata
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from starlette.applications import Starlette
from starlette.testclient import TestClient

from studio.csv_text import csv_text
from studio.domain.request import GenerationRequest
from studio.domain.tags import adapters_named
from studio.gallery import Gallery
from studio.html_page import html_page
from studio.infotext import request_from_infotext
from studio.ledger import Ledger
from studio.services import Services
from studio.settings import PROJECT_ROOT
from studio.web.routes import all_routes
from tabs import views
from tabs.adapter_facts import facts_html
from tests.reliability.conftest import Score
from tests.studio.adapter_files import adapter_file
from tests.studio.records import CATALOGUE, new_image, picture, recipe, record

TEXTS = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"><svg onload=alert(1)>", "'><b>x</b>",
    "</textarea><script>x</script>", "javascript:alert(1)", "<!--", "]]>", "{{7*7}}${7*7}", "<a href='data:x'>x</a>",
    "[x](javascript:alert(1))", "![x](http://127.0.0.1/x)", "\u202egnp.exe", "&lt;script&gt;",
)  # fmt: skip
FORMULAS = ("=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1+1", "\r=1+1", "\n=1+1", " =1+1", '=HYPERLINK("http://x")',
            "＝1+1", "＋1", "－1", "＠SUM(1)", "=cmd|' /C calc'!A0")  # fmt: skip
STARTS = set("=+-@\t\r\n＝＋－＠")


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_is_a_formula(formula: str, score: Score) -> None:
    text = csv_text([{formula: formula, "n": -1.5, "late": f"x\r{formula}"}])
    assert "\r" not in text
    (names, cells) = csv.reader(io.StringIO(text))
    for cell in (names[0], cells[0]):
        assert cell.lstrip(" ")[0] not in STARTS and cell.endswith(formula.replace("\r", "\n"))
    assert cells[1] == "-1.5"
    score(inputs=1)


@pytest.fixture
def client(services: Services) -> Iterator[TestClient]:
    services.runner.stop(30)
    with TestClient(Starlette(routes=all_routes(services))) as opened:
        yield opened


def test_what_programs_are_told_is_never_a_page(client: TestClient, services: Services, score: Score) -> None:
    for number, text in enumerate(TEXTS):
        gallery = Gallery(services.settings.images_dir, services.ledger, CATALOGUE)
        made = gallery.save(picture(number), new_image(f"job{number}", prompt=text))
        for path in (f"/api/v1/pictures/{made.id}", "/api/v1/pictures", f"/api/v1/models?x={text}",
                     f"/api/v1/{text}", f"/v1/{text}", f"/sdapi/v1/{text}"):  # fmt: skip
            answer = client.get(path)
            assert answer.headers["content-type"].startswith("application/json"), path
            assert json.loads(answer.text) is not None
        shown = client.get(f"/pictures/{made.id}.png")
        assert shown.headers["content-type"] == "image/png"
    score(inputs=len(TEXTS))


@pytest.mark.parametrize("text", TEXTS)
def test_pages_show_it_as_text(text: str, services: Services, score: Score) -> None:
    file = adapter_file(services.settings.data_dir / "x.safetensors", metadata={"ss_output_name": text, text: text})
    services.adapters.store.add(file)
    services.adapters.store.update("x", {"title": text[:60], "notes": text, "trigger_words": (text[:60],)})
    (entry,) = services.adapters.store.entries()
    made = record("x", recipe(prompt=text + "x", negative_prompt=text))
    pages = [
        html_page(text, ""), facts_html(entry, [text], is_owner=True), views.failed(text, text),
        views.definitions({text: text}, "x"), views.pictures([made], None, text, text),
        views.finished(made, text, text),
        views.all_facts(made, CATALOGUE), views.verdict(text, text), views.idle(text, text),
    ]  # fmt: skip
    for place, page in enumerate(pages):
        is_for_a_widget = page.startswith(("{", "["))  # which writes it as text, and so reads JSON
        assert json.loads(page) if is_for_a_widget else "<" not in text or text not in page, place
    score(inputs=len(pages))


INFOTEXTS = (
    "a circle\nSteps: 4, Sampler: Euler, Seed: 1, Model: ../../etc/passwd",
    "a circle\nSteps: 4, Sampler: ../../x, Seed: 1, Model: http://127.0.0.1/x.safetensors, Model hash: ../..",
    'a circle\nSteps: 4, Sampler: Euler, Seed: 1, Init image: "/etc/passwd", Mask: "../x", Control image: "file:///x"',
    "a circle\nSteps: 999999999, Sampler: Euler, Seed: -99, CFG scale: nan, Size: 99999x99999, Clip skip: -1",
    'a circle\nSteps: 4, Sampler: Euler, Seed: 1, Override settings: "{}", checkpoint: /x, kind: train, folder: /etc',
    "a circle\n" + ", ".join(f"Key{n}: {n}" for n in range(10_000)),
    "a circle\nSteps: 4, Sampler: Euler, Seed: 1, " + ", ".join(f'K{n}: "{"x" * 50}"' for n in range(10_000)),
    'a circle\nSteps: 4, Sampler: Euler, Seed: 1, Accelerator: ../../x, VAE: ../x, Decoder: ../x, Lora hashes: "a: b"',
)


@pytest.mark.parametrize("text", INFOTEXTS, ids=range(len(INFOTEXTS)))
def test_a_pasted_text_says_only_what_we_know(text: str, score: Score) -> None:
    began = time.thread_time()
    found = request_from_infotext(text, CATALOGUE)
    assert time.thread_time() - began < 1
    asked = found.request
    assert set(asked.model_dump()) == set(GenerationRequest.model_fields)
    assert asked.checkpoint in {None, *(row.id for row in CATALOGUE.checkpoints)}
    assert asked.accelerator in {None, "none", *(row.id for row in CATALOGUE.accelerators)}
    assert asked.scheduler in {None, *(row.id for row in CATALOGUE.schedulers)}
    for field in ("init_image", "mask", "control_image"):
        assert re.fullmatch(r"([0-9a-f]{64})?", getattr(asked, field)), field
    assert not list(adapters_named(asked.prompt))
    CATALOGUE.resolve(asked)
    score(inputs=1)


def sources() -> list[Path]:
    return [
        path for top in ("studio", "engines", "lora_registry", "tabs") for path in (PROJECT_ROOT / top).rglob("*.py")
    ]


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call in what is run: where, by what name, and the call."""
    for path in [PROJECT_ROOT / "app.py", *sources()]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(PROJECT_ROOT)}:{node.lineno}", ast.unparse(node.func), node


PICKLES = ("studio/engine_messages.py", "studio/domain/portable.py")
"""Where our own processes speak to each other, over a pipe that nobody else has, and where it is tried whether an error
can travel that way."""


def test_nothing_that_came_from_elsewhere_is_run() -> None:
    for place, name, call in calls():
        keywords = {each.arg: ast.unparse(each.value) for each in call.keywords}
        assert keywords.get("trust_remote_code", "False") == "False", place
        assert keywords.get("allow_pickle", "False") == "False", place
        assert keywords.get("shell", "False") == "False", place
        assert name not in ("eval", "exec", "os.system", "os.popen", "yaml.load", "marshal.loads"), place
        assert not re.search(
            r"\b(pickle|dill|joblib|cloudpickle|shelve)\.(loads?|Unpickler)$", name
        ) or place.startswith(PICKLES), place
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", place
        if re.search(r"\.from_pretrained$", name) and "Tokenizer" not in name and "use_safetensors" in keywords:
            assert keywords["use_safetensors"] == "True", place
        told = ast.unparse(call)
        assert not re.search(r"['\"](pip|uv|conda|apt-get|npm)['\"]\s*,\s*['\"](install|-m)", told), place


def requirements() -> list[tuple[str, Requirement]]:
    found = []
    for path in sorted(PROJECT_ROOT.glob("requirements*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            text = line.partition("#")[0].strip()
            if text and not text.startswith("-r"):
                found.append((path.name, Requirement(text)))
    return found


def test_every_requirement_has_both_bounds_and_one_line() -> None:
    seen: dict[str, str] = {}
    for file, each in requirements():
        kinds = {spec.operator for spec in each.specifier}
        assert kinds & {">=", "=="} and kinds & {"<", "=="}, f"{file}: {each}"
        assert each.url is None and each.name.lower() not in seen, f"{file}: {each}, and {seen.get(each.name.lower())}"
        seen[each.name.lower()] = file
    assert len(seen) > 20


def test_what_is_installed_is_what_is_required_and_fits_together() -> None:
    """What `pip check` looks at, of what we ask for and all that comes with it."""
    problems: list[str] = []
    waiting = [each for file, each in requirements() if file == "requirements.txt"]
    seen: set[tuple[str, str]] = set()
    while waiting:
        each = waiting.pop()
        key = (each.name.lower(), str(each.specifier))
        if key in seen or (each.marker and not each.marker.evaluate({"extra": ""})):
            continue
        seen.add(key)
        try:
            found = importlib.metadata.distribution(each.name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{each.name} is missing")
            continue
        if not each.specifier.contains(found.version, prereleases=True):
            problems.append(f"{each.name} {found.version} is not {each.specifier}")
        waiting += [Requirement(text) for text in found.requires or ()]
    ours = {each.name.lower() for _, each in requirements()}
    assert [problem for problem in problems if problem.split()[0].lower() in ours] == []
    assert len(seen) > 60


def test_the_ledger_keeps_any_text(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'studio.db'}")
    gallery = Gallery(tmp_path / "images", ledger, CATALOGUE)
    for number, text in enumerate((*TEXTS, *FORMULAS, "'; DROP TABLE images; --", '" OR 1=1 --', "%_\\")):
        made = gallery.save(picture(number), new_image(f"job{number}", prompt=text + "x"))
        assert gallery.image(made.id).recipe.prompt == text + "x" and gallery.is_whole(made)
    assert gallery.count("'; DROP") == 1
    ledger.close()
