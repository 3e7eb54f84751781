"""The benchmarks, which no other test runs, use names that exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.source import MODULES, ROOT, defined_in

BENCHMARKS = [path for path in sorted((ROOT / "bench").iterdir()) if path.is_file() and path.suffix in ("", ".py")]


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_the_names_that_a_benchmark_uses_exist(path: Path) -> None:
    """What a benchmark imports of the package and of the tests is defined there, and what it uses of their modules."""
    tree = ast.parse(path.read_text())
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in MODULES:
                    imported[alias.asname or alias.name] = name
                else:
                    assert alias.name in defined_in(node.module), name
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.module.split(".")[0] not in ("dls", "tests"), node.module
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
            module = imported[node.value.id]
            assert node.attr in defined_in(module), f"{module}.{node.attr}"
