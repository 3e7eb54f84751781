"""The limits of the code: how long a function and a module may be."""

from __future__ import annotations

import statistics

from tests.support.source import MODULES, function_bodies, modules


def test_no_function_body_over_40_lines() -> None:
    """A function's body has at most 40 lines, without its docstring."""
    assert not [found for name in modules("dls") for found in function_bodies(name) if found[1] > 40]


def test_function_bodies_are_short() -> None:
    """Half of the functions have a body of at most 5 lines."""
    assert statistics.median(lines for name in modules("dls") for _, lines in function_bodies(name)) <= 5


def test_no_module_over_350_lines() -> None:
    """A module has at most 350 lines."""
    lengths = {name: len(MODULES[name].read_text().splitlines()) for name in modules("dls")}
    assert not {name: length for name, length in lengths.items() if length > 350}
