"""The README and its pages tell of everything there is, and of nothing that is not there."""

import argparse
import ast
import re
from pathlib import Path

import pytest

from studio.cli.arguments import FLAGS, build_parser
from studio.cli.merge_arguments import MERGE_FLAGS
from studio.cli.train_arguments import TRAIN_FLAGS
from studio.domain.catalogue import Catalogue
from studio.settings import PREFIX, PROJECT_ROOT, Settings

README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [path for name in ("*.md", "docs/**/*.md", "engines/**/*.md") for path in PROJECT_ROOT.glob(name)]
DECISIONS = sorted((PROJECT_ROOT / "docs" / "decisions").glob("*.md"))
_LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)|(?:src|href|srcset)=\"([^\"#]+)\"")


def commands(catalogue: Catalogue) -> list[str]:
    parser = build_parser(catalogue)
    choices = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return list(choices[0])


def tab_titles() -> list[str]:
    tree = ast.parse((PROJECT_ROOT / "tabs" / "shell.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "gr.Tab"]
    return [str(ast.literal_eval(call.args[0])) for call in calls]


@pytest.mark.parametrize("setting", Settings.model_fields)
def test_a_setting_is_in_the_table_with_its_default(setting: str) -> None:
    line = next((line for line in README.splitlines() if line.startswith(f"| `{PREFIX}{setting.upper()}`")), "")
    assert line, f"{PREFIX}{setting.upper()} is not in the README's table of settings"
    default = Settings.model_fields[setting].default
    assert isinstance(default, Path) or default in ("", False) or f"`{default}`" in line


def test_the_table_has_no_setting_that_is_gone() -> None:
    told = {name.removeprefix(PREFIX).lower() for name in re.findall(rf"{PREFIX}[A-Z_]+[A-Z]", README)}
    assert told <= set(Settings.model_fields)


def test_every_command_and_flag_is_told(catalogue: Catalogue) -> None:
    assert [name for name in commands(catalogue) if f"python -m studio {name}" not in README] == []
    flags = [*(flag for flag, _ in FLAGS.values()), *MERGE_FLAGS, *(flag for flag, _ in TRAIN_FLAGS.values())]
    assert [flag for flag in flags if f"`{flag}`" not in README and f" {flag} " not in README] == []


def test_every_tab_is_told() -> None:
    assert tab_titles(), "tabs/shell.py has no gr.Tab with a title"
    assert [title for title in tab_titles() if f"**{title}**" not in README] == []


def test_every_checkpoint_is_told(catalogue: Catalogue) -> None:
    assert [row.id for row in catalogue.checkpoints if f"`{row.id}`" not in README] == []
    assert [row.licence for row in catalogue.checkpoints if row.licence not in README] == []


def test_every_accelerator_is_told(catalogue: Catalogue) -> None:
    assert [row.id for row in catalogue.accelerators if f"`{row.id}`" not in README] == []
    restricted = [row.licence for row in catalogue.accelerators if not row.is_commercial]
    assert [licence for licence in restricted if licence.split(",")[0] not in README] == []


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name)
def test_a_decision_is_one_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert re.match(r"\d{4}-[a-z0-9-]+\.md$", page.name)
    assert [part for part in ("## Context", "## Choice", "## Consequences") if part not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT_ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = [first or second for first, second in _LINK.findall(page.read_text(encoding="utf-8"))]
    inside = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in inside if not (page.parent / target).exists()] == []
