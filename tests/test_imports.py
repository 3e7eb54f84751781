"""Which package may import what.

The source shows imports inside functions too, which an interpreter meets only when the function runs; a fresh
interpreter shows what the packages of others import in turn.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from dls.remote.host.packages import CLIENT_COMMANDS
from tests.support.source import MODULES, all_imports, closure, inside, modules, packages_of, roots

LAYERS = {
    "certificates": 0, "durations": 0, "futures": 0, "progress": 0, "toml": 0, "user": 0, "web_proxy": 0, "ssh": 1,
    "host": 2, "parcel": 2, "carriers": 3, "licence": 3, "cluster": 4, "keychain": 4, "loan": 4, "login": 4,
    "supplier": 5, "tunnel": 5, "commands": 6, "doctor": 6, "session": 6,
}  # fmt: skip
"""Levels of `dls/remote/`: a module imports its own level and lower ones."""
PAGE = {"dls.page", "dls.page.access", "dls.page.routes", "dls.page.view"}
"""The page, which both sides serve; it imports nothing else of the package."""
SHARED = {
    "dls", "dls.contract", "dls.credentials", "dls.engine_choice", "dls.errors", "dls.extras", "dls.gpus", "dls.hub",
    "dls.images", "dls.weights", *PAGE,
}  # fmt: skip
"""Modules of the package that `remote/` and `server/` may both import."""
SERVER_PACKAGES = {"torch", "numpy", "scipy", "skimage", "starlette", "uvicorn", "isal", "multipart", "httptools"}
CLIENT_PACKAGES = {"paramiko", "sshtunnel", "rich"}
IMPURE = {
    "asyncio", "concurrent", "datetime", "http", "multiprocessing", "os", "pathlib", "queue", "random", "secrets",
    "select", "selectors", "shutil", "signal", "socket", "ssl", "starlette", "subprocess", "tempfile", "threading",
    "time", "urllib", "uvicorn",
}  # fmt: skip


def loaded_by(*arguments: str) -> set[str]:
    """Return the modules that a fresh interpreter loads."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(re.findall(r"^import time: .*\| +(\S+)$", done.stderr, re.M))


def level_of(name: str) -> int:
    """Return the level of a module in `dls/remote/`; the package itself is below all."""
    parts = name.split(".")
    return LAYERS[parts[2]] if len(parts) > 2 else -1


@pytest.mark.parametrize("name", modules("dls.remote"))
def test_a_lower_layer_imports_no_higher_one(name: str) -> None:
    """In `remote/`: ssh < host < carriers < login < tunnel < session and commands."""
    for found in inside(all_imports(name), "dls.remote"):
        assert level_of(found) <= level_of(name), f"{name} imports {found}"


def test_remote_and_server_meet_in_the_contract_only() -> None:
    """Neither imports the other, the command line or the demo; both import the shared modules only."""
    for package in ("dls.remote", "dls.server"):
        for name in modules(package):
            ours = inside(all_imports(name), "dls")
            segmenting = inside(ours, "dls.segment") if name == "dls.remote.session" else set()
            assert ours - inside(ours, package) - segmenting <= SHARED, name


def test_the_shared_modules_import_the_standard_library_only() -> None:
    """`contract` and `errors` import nothing of the package, and no shared module needs a package to be installed."""
    for name in ("dls.contract", "dls.errors"):
        assert roots(all_imports(name)) <= sys.stdlib_module_names, name
    for name in SHARED:
        assert roots(closure(name)) <= sys.stdlib_module_names | {"dls"}, name


def test_the_page_is_pure() -> None:
    """`page/` decides what a request gets: no sockets, clocks, threads or processes, and no files but its own."""
    for name in PAGE:
        found = all_imports(name)
        assert inside(found, "dls") <= PAGE, name
        assert not roots(found) & IMPURE, name
    assert modules("dls.page") == sorted(PAGE)


def test_the_wire_format_is_pure() -> None:
    """`server/wire/` turns bytes into arrays and back: it knows no sockets, clocks, threads, processes or files."""
    ours = {"dls.server.volume", "dls.server.operations", "dls.server.shared_memory", "dls.errors", "dls.contract"}
    for name in modules("dls.server.wire"):
        found = all_imports(name)
        assert inside(found, "dls") - inside(found, "dls.server.wire") <= ours, name
        assert not roots(found) & IMPURE, name


def test_each_side_needs_its_own_packages_only() -> None:
    """No function of the client uses the server's packages, and none of the server the client's."""
    for name in modules("dls.remote", "dls.contract", "dls.credentials", "dls.errors", "dls.gpus", "dls.weights"):
        assert not roots(all_imports(name)) & SERVER_PACKAGES, name
    for name in modules("dls.server"):
        assert not roots(all_imports(name)) & CLIENT_PACKAGES, name


def test_segmenting_is_a_client() -> None:
    """`segment/` knows no server, command and demo, of `remote/` only the progress, and one module has SimpleITK."""
    for name in modules("dls.segment"):
        ours = inside(all_imports(name), "dls") - inside(all_imports(name), "dls.segment")
        assert ours <= SHARED | {"dls.remote.progress"}, name
        assert not roots(all_imports(name)) & (SERVER_PACKAGES - {"numpy"} | CLIENT_PACKAGES), name
    assert [name for name in modules("dls") if "SimpleITK" in roots(all_imports(name))] == ["dls.segment.images"]


def test_a_session_loads_numpy_when_it_segments() -> None:
    """A connect without numpy works: `Session.segment` imports what it needs when it is called."""
    code = (
        "import sys, dls; dls.Session, dls.connect, dls.Point, dls.Scribble, dls.Lasso, dls.Box\n"
        "assert 'dls.segment.prompts' in sys.modules and not {'numpy', 'dls.segment.segmenter'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_few_modules_import_rich() -> None:
    """Only what draws on a terminal imports rich."""
    drawing = {f"dls.cli.{name}" for name in ("console", "live", "panels", "reporter", "tables")}
    assert {name for name in modules("dls") if "rich" in roots(all_imports(name))} == drawing


@pytest.mark.parametrize("name", ["dls.server.spawn", "dls.weights"])
def test_what_runs_before_the_engines(name: str) -> None:
    """`spawn` starts the engine's process before anything slow is imported; `weights` runs on a laptop."""
    found = closure(name)
    assert not roots(found) & SERVER_PACKAGES
    assert not inside(found, "dls.server.engines")


def test_no_import_cycles() -> None:
    """No module imports itself through others: not when it is loaded, in a function, or for type checkers.

    The packages that a module lies in are loaded before it, so they may import it.
    """
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name in done or name not in MODULES:
            return
        found = all_imports(name)
        packages = {package for one in found for package in packages_of(one)}
        for below in sorted((found | packages) - {name, *packages_of(name)}):
            visit(below, (*path, name))
        done.add(name)

    for name in modules("dls"):
        visit(name, ())


def test_the_help_imports_no_more_than_click_does() -> None:
    """`dls --help` must answer at once: it loads what a bare click program loads, and none of the commands."""
    bare = "import click, runpy; click.version_option('1')(click.Group('x')).main(['--help'], standalone_mode=False)"
    found = loaded_by("-m", "dls", "--help") - loaded_by("-c", bare)
    assert found <= {
        "dls",
        "dls.cli",
        "dls.cli.encodings",
        "dls.cli.help",
        "dls.cli.main",
        "dls.errors",
        "importlib.metadata",
    }


def test_the_library_is_loaded_when_it_is_used() -> None:
    """`import dls` runs on hosts and in every command: it loads nothing but itself."""
    assert inside(loaded_by("-c", "import dls"), "dls") == {"dls", "dls.errors"}


def test_all_of_the_client() -> None:
    """`pip install dls` brings no numpy: all of `remote/` loads without the server's packages."""
    found = loaded_by("-c", "\n".join(f"import {name}" for name in modules("dls.remote")))
    assert not roots(found) & SERVER_PACKAGES
    assert not inside(found, "dls.server")


def test_all_of_the_server() -> None:
    """A host gets no paramiko, sshtunnel and rich: all of `server/` loads without them, and without torch."""
    found = loaded_by("-c", "\n".join(f"import {name}" for name in modules("dls.server", "dls.weights")))
    assert not roots(found) & (CLIENT_PACKAGES | {"torch", "nnInteractive", "huggingface_hub"})
    assert not inside(found, "dls.remote")


def test_a_started_server_needs_only_what_the_host_gets() -> None:
    """`dls serve --launch-file` loads none of the client's packages and modules on its way to the engine."""
    found = loaded_by("-c", "import dls.cli.main, dls.cli.serve, dls.server.serve, dls.server.engines.region")
    assert not found & {f"dls.cli.{name}" for name in CLIENT_COMMANDS}
    assert not roots(found) & CLIENT_PACKAGES
    assert not inside(found, "dls.remote", "dls.demo")


def test_the_client_loads_paramiko_without_invoke() -> None:
    """`invoke` takes as long to load as paramiko itself, and a connect does not need it; others can still import it."""
    found = loaded_by(
        "-c", "import dls.remote.session, sys; assert 'invoke' not in sys.modules; import dls.remote.commands"
    )
    assert "paramiko" in found and not any(name.startswith("invoke.") for name in found)
