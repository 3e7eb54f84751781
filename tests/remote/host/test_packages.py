"""The packages for the host are those of pyproject.toml."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import dls
from dls.errors import TargetError
from dls.remote.host.packages import NNINTERACTIVE, SERVER, Code, requirements

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


def test_the_code_of_a_checkout_on_windows(tmp_path: Path) -> None:
    """Git gives it other line ends there: it has the same key, so that a server of one laptop serves the other."""
    package = Path(dls.__file__).parent
    for path in ("__init__.py", "cli/main.py", "server/serve.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes((package / path).read_bytes().replace(b"\n", b"\r\n"))
    there, found = dict(Code.installed().files), Code.installed(tmp_path)
    assert [name for name, _ in found.files] == ["dls/__init__.py", "dls/cli/main.py", "dls/server/serve.py"]
    assert all(there[name] == content for name, content in found.files)


def test_an_unknown_engine() -> None:
    """It is refused, and the hint lists the engines."""
    with pytest.raises(TargetError, match="magic") as caught:
        requirements("magic")
    assert "region" in caught.value.hint
