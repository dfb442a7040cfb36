"""Size limits: what is read at one go stays small enough for it."""

import ast
from collections.abc import Iterator
from pathlib import Path

from studio.settings import PROJECT_ROOT

FOLDERS = ("studio", "tabs", "engines", "lora_registry", "bench", "examples")
FILE_LINES = 400
FUNCTION_LINES = 60
LAYOUT_LINES = 100
"""For the `build*` functions of the tabs, which lay out a page."""
PARAMETERS = 8
NESTING = 3
EXAMPLE_LINES = 40

Function = ast.FunctionDef | ast.AsyncFunctionDef
_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.Match)
"""What branches or repeats. A `with` does neither: it says what holds inside."""


def files() -> list[Path]:
    found = [path for folder in FOLDERS for path in (PROJECT_ROOT / folder).rglob("*.py")]
    return [PROJECT_ROOT / "app.py", *found]


def functions() -> Iterator[tuple[str, Path, Function]]:
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                yield f"{path.relative_to(PROJECT_ROOT)}:{node.lineno} {node.name}", path, node


def parameters(function: Function) -> int:
    given = function.args
    names = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return sum(name is not None and name.arg not in ("self", "cls") for name in names)


def nesting(node: ast.AST) -> int:
    """How deep blocks lie in each other below `node`; an elif is as deep as its if, an inner function starts anew."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.Lambda):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, nesting(child) + (isinstance(child, _BLOCKS) and not is_elif))
    return deepest


def test_files_are_short() -> None:
    lengths = {path.relative_to(PROJECT_ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    assert {str(path): lines for path, lines in lengths.items() if lines > FILE_LINES} == {}
    assert {str(p): n for p, n in lengths.items() if p.parts[0] == "examples" and n > EXAMPLE_LINES} == {}


def test_functions_are_short() -> None:
    long = {}
    for name, path, function in functions():
        is_layout = path.parent.name == "tabs" and function.name.removeprefix("_").startswith("build")
        lines = (function.end_lineno or 0) - function.lineno + 1
        if lines > (LAYOUT_LINES if is_layout else FUNCTION_LINES):
            long[name] = lines
    assert long == {}


def test_functions_take_few_parameters() -> None:
    assert {name: count for name, _, node in functions() if (count := parameters(node)) > PARAMETERS} == {}


def test_blocks_are_nested_little() -> None:
    assert {name: depth for name, _, node in functions() if (depth := nesting(node)) > NESTING} == {}


def test_depth_is_counted_as_a_reader_sees_it() -> None:
    def depth(source: str) -> int:
        return nesting(ast.parse(source).body[0])

    assert depth("def f():\n if a:\n  pass\n elif b:\n  pass\n elif c:\n  pass") == 1
    assert depth("def f():\n for a in b:\n  with c:\n   try:\n    pass\n   except E:\n    if d: pass") == 3
    assert depth("def f():\n if a:\n  def g():\n   if b: pass") == 1
