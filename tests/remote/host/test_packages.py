"""The packages for the host are those of pyproject.toml."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dls.errors import TargetError
from dls.remote.host.packages import NNINTERACTIVE, SERVER, requirements

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]


def test_the_server_packages_are_those_of_the_extra() -> None:
    """The host gets the packages of the extras, and click, which starts the server."""
    click = [package for package in PROJECT["dependencies"] if package.startswith("click")]
    extras = PROJECT["optional-dependencies"]
    assert sorted(SERVER) == sorted(click + extras["server"])
    torch = [package for package in extras["nninteractive"] if not package.startswith("dls")]
    assert sorted(NNINTERACTIVE) == sorted([*SERVER, *torch])


def test_an_unknown_engine() -> None:
    """It is refused, and the hint lists the engines."""
    with pytest.raises(TargetError, match="magic") as caught:
        requirements("magic")
    assert "region" in caught.value.hint
