"""What the host gets is what pyproject.toml says."""

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
    """And click, which starts it."""
    click = [package for package in PROJECT["dependencies"] if package.startswith("click")]
    extras = PROJECT["optional-dependencies"]
    assert sorted(SERVER) == sorted(click + extras["server"])
    torch = [package for package in extras["nninteractive"] if not package.startswith("dls")]
    assert sorted(NNINTERACTIVE) == sorted([*SERVER, *torch])


def test_an_engine_nobody_knows() -> None:
    """Refused before anybody logs in, with those there are."""
    with pytest.raises(TargetError, match="magic") as caught:
        requirements("magic")
    assert "region" in caught.value.hint
