"""The package's source, read with `ast`: its modules, what they import and define, and the length of its functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for top in ("dls", "tests") for path in sorted((ROOT / top).rglob("*.py"))}
"""Files of the package's and the tests' modules, by the module's name."""


def modules(*packages: str) -> list[str]:
    """Return the names of the packages and of all modules in them."""
    return [name for name in MODULES if any(name == top or name.startswith(f"{top}.") for top in packages)]


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


def names_in(statement: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yield what a statement imports; of `from a import b` the module `a.b` where that is one of ours, else `a`."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
        return
    assert statement.level == 0 and statement.module is not None, "a relative import"
    for alias in statement.names:
        below = f"{statement.module}.{alias.name}"
        yield below if below in MODULES else statement.module


def all_imports(name: str) -> set[str]:
    """Return all that a module imports anywhere: at its head, in functions, and for type checkers only."""
    statements = [node for node in ast.walk(tree_of(name)) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {found for statement in statements for found in names_in(statement)}


def is_for_types(node: ast.AST) -> bool:
    """Whether the node is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def imports_when_loaded(name: str) -> frozenset[str]:
    """Return what a module imports while it is imported itself."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_for_types(node):
            return
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.update(names_in(node))
        for below in ast.iter_child_nodes(node):
            visit(below)

    visit(tree_of(name))
    return frozenset(found)


def packages_of(name: str) -> list[str]:
    """Return the packages that a module lies in, which are imported before it."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def closure(*names: str) -> set[str]:
    """Return all that is imported, directly or not, when these modules are."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            if name in MODULES:
                waiting += [*packages_of(name), *imports_when_loaded(name)]
    return found


def roots(names: set[str]) -> set[str]:
    """Return the top-level packages of the modules."""
    return {name.split(".")[0] for name in names}


def inside(names: set[str], *packages: str) -> set[str]:
    """Return those of the modules that are one of the packages or lie in one."""
    return {name for name in names if any(name == top or name.startswith(f"{top}.") for top in packages)}


def defined_in(name: str) -> set[str]:
    """Return the names that a module defines, imports or assigns outside functions and classes."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            return
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.update(alias.asname or alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        for below in ast.iter_child_nodes(node):
            visit(below)

    visit(tree_of(name))
    return found


def function_bodies(name: str) -> Iterator[tuple[str, int]]:
    """Yield each function of a module with the number of lines of its body, without its docstring."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body:
                last = body[-1].end_lineno
                assert last is not None
                yield f"{name}.{node.name}", last - body[0].lineno + 1
