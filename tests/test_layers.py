"""Imports point one way: app → tabs → studio → engines | lora_registry → studio.domain."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.settings import PROJECT_ROOT

TORCH = ("torch", "diffusers", "transformers", "peft", "accelerate", "open_clip")
PAGE = ("gradio", "tabs", "app")

FORBIDDEN = {
    "studio": (*PAGE, *TORCH),
    "engines": PAGE,
    "lora_registry": PAGE,
    "tabs": ("engines", "lora_registry", "app", *TORCH),
    "bench": PAGE,
    "examples": PAGE,
}
"""Folder → what nothing in it may import, wherever the import stands."""

INTERFACES = ("openai", "a1111", "own")
"""The packages of `studio/web` that each speak to other programs in a way of their own."""

LIGHT = (
    [f"engines/pocket/{name}.py" for name in ("world", "grammar", "sampling", "checker")]
    + [f"engines/{name}.py" for name in ("base", "identity", "soundness", "footprint", "plans", "places", "detection")]
    + [f"engines/training/{name}.py" for name in ("footprint", "reach")]
    + ["engines/system_memory.py"]
    + [f"engines/{name}.py" for name in ("zero_gpu", "zero_gpu_call", "zero_gpu_time", "zero_gpu_refusals")]
)


def python_files(folder: str) -> Iterator[Path]:
    return (path for path in (PROJECT_ROOT / folder).rglob("*.py") if "node_modules" not in path.parts)


def imported(source: str) -> set[str]:
    """Every module that `source` imports, at the top or inside a function; `from a import b` counts as a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative imports hide which layer they reach"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def offences(folder: str, forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{path.relative_to(PROJECT_ROOT)} imports {module}"
        for path in python_files(folder)
        for module in sorted(imported(path.read_text(encoding="utf-8")))
        if any(is_in(module, package) for package in forbidden)
    ]


def test_an_import_is_seen_wherever_it_stands() -> None:
    source = "import a.b\nfrom c import d\ndef f():\n    from torch import nn\nif x:\n    import e as g"
    assert imported(source) == {"a.b", "c.d", "torch.nn", "e"}
    with pytest.raises(AssertionError, match="relative"):
        imported("from .a import b")


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_a_layer_knows_only_those_below(folder: str) -> None:
    assert offences(folder, FORBIDDEN[folder]) == []


def test_the_domain_needs_the_standard_library_and_pydantic_only() -> None:
    allowed = {*sys.stdlib_module_names, "pydantic", "pydantic_core"}
    for path in python_files("studio/domain"):
        foreign = {name for name in imported(path.read_text(encoding="utf-8")) if name.split(".")[0] not in allowed}
        assert all(is_in(name, "studio.domain") for name in foreign), f"{path.name} imports {sorted(foreign)}"


@pytest.mark.parametrize("folder", ["engines", "lora_registry"])
def test_what_lies_below_the_services_knows_their_words_only(folder: str) -> None:
    assert [line for line in offences(folder, ("studio",)) if " imports studio.domain." not in line] == []


@pytest.mark.parametrize("file", LIGHT)
def test_what_is_asked_before_anything_is_loaded_needs_no_torch(file: str) -> None:
    seen: set[str] = set()
    waiting = [PROJECT_ROOT / file]
    while waiting:  # and nothing of the project that they import needs it either
        for module in imported(waiting.pop().read_text(encoding="utf-8")) - seen:
            seen.add(module)
            path = PROJECT_ROOT / (module.rpartition(".")[0].replace(".", "/") + ".py")
            waiting += [path] if path.is_file() else []
    assert [module for module in seen if any(is_in(module, package) for package in TORCH)] == []


def test_nothing_imports_the_composition_root() -> None:
    assert [line for folder in (*FORBIDDEN, "tests") for line in offences(folder, ("app",))] == []


@pytest.mark.parametrize("name", INTERFACES)
def test_an_interface_over_http_knows_no_other(name: str) -> None:
    others = tuple(f"studio.web.{other}" for other in INTERFACES if other != name)
    assert offences(f"studio/web/{name}", others) == []


def test_what_interfaces_share_knows_none_of_them() -> None:
    found = offences("studio/web", tuple(f"studio.web.{name}" for name in INTERFACES))
    assert {Path(line.split()[0]).name for line in found if Path(line.split()[0]).parent.name == "web"} == {"routes.py"}
