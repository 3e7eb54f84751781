"""Which room may import what, in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dls"


def modules(folder: str) -> list[str]:
    paths = sorted((PACKAGE / folder).rglob("*.py"))
    return [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__") for path in paths
    ]


def imported_by(*names: str) -> set[str]:
    """Return the modules that are loaded after importing these in a fresh interpreter."""
    code = f"import sys\n{chr(10).join(f'import {name}' for name in names)}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def roots(found: set[str]) -> set[str]:
    return {name.split(".")[0] for name in found}


def test_the_client_imports_nothing_of_the_server() -> None:
    """`pip install dls` has no numpy; `remote/` and `server/` never import each other."""
    found = imported_by(*modules("remote"))
    assert not roots(found) & {
        "torch",
        "numpy",
        "scipy",
        "skimage",
        "starlette",
        "uvicorn",
        "isal",
        "multipart",
        "httptools",
    }
    assert not any(name.startswith("dls.server") for name in found)


def test_the_server_imports_nothing_of_the_client() -> None:
    """The host's environment has no paramiko, no sshtunnel and no rich."""
    found = imported_by(*modules("server"))
    assert not roots(found) & {"paramiko", "sshtunnel", "rich", "torch", "nnInteractive"}
    assert not any(name.startswith("dls.remote") for name in found)


def test_the_command_line_imports_neither() -> None:
    """`dls --help` must feel instant."""
    found = imported_by("dls", "dls.cli")
    assert not roots(found) & {"paramiko", "sshtunnel", "rich", "numpy", "starlette", "uvicorn", "asyncio", "torch"}


def test_a_started_server_needs_only_what_the_host_gets() -> None:
    """What `dls serve --launch-file` imports on the way to its engine."""
    found = imported_by("dls.cli", "dls.server.serve", "dls.server.engines.region")
    assert not roots(found) & {"paramiko", "sshtunnel", "rich"}


@pytest.mark.parametrize("name", modules(""))
def test_no_module_depends_on_another_being_imported_first(name: str) -> None:
    """No import cycles: each can be the first."""
    if not name.endswith("__main__"):
        imported_by(name)
