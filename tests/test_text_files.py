"""Text files are read and written as UTF-8, whatever the code page of the computer is."""

from __future__ import annotations

import ast

from tests.support.source import modules, tree_of


def open_calls(name: str) -> list[ast.Call]:
    """Return the calls of a module that open, read or write a text file."""
    return [node for node in ast.walk(tree_of(name)) if isinstance(node, ast.Call) and is_for_text(node)]


def is_for_text(call: ast.Call) -> bool:
    if ast.unparse(call.func) in ("config_text.read_text", "read_text", "formatter.write_text"):  # no files
        return False
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if called in ("read_text", "write_text"):
        return True
    modes = [value.value for value in call.args if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    return called in ("open", "fdopen") and any(set(mode) <= set("rwax+t") for mode in modes)


def test_every_text_file_names_its_encoding() -> None:
    """Without one, Windows takes its code page, and a name with an umlaut in a file is read as another one."""
    calls = [(name, call) for name in modules("dls") for call in open_calls(name)]
    assert len(calls) > 10  # they are found
    lacking = [
        f"{name}:{call.lineno}" for name, call in calls if "encoding" not in {word.arg for word in call.keywords}
    ]
    assert not lacking
