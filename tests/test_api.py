"""The public API: the names of `dls`, what importing it costs, and that it can do what the command can."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import fields

import pytest

import dls
from dls.cli.connect import connect
from dls.contract import ServerState
from dls.errors import DlsError

ONLY_COMMAND = {
    "target", "local_port", "local_secret", "accept_licence", "notify", "no_page", "stop_server", "save", "steps",
    "as_json",
}  # fmt: skip
"""Options of the command that are no field: parameters of connect() and close(), what is kept, and the output."""
UNITS = re.compile("_(minutes|days|gib)$")
OTHER_NAMES = {"password_file": "password", "no_network": "network", "nninteractive_api": "native_api"}
"""Fields whose option has another name."""
ONLY_LIBRARY = {"tcp"}
"""Fields that connect() sets itself."""


def test_every_public_name_exists() -> None:
    """`__all__` is sorted, has no name that can't be imported, and every name of it is listed by dir()."""
    assert dls.__all__ == sorted(dls.__all__)
    for name in dls.__all__:
        assert getattr(dls, name) is not None
    assert set(dls.__all__) <= set(dir(dls))
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        dls.nothing_of_ours  # noqa: B018


def test_connect_raises_exported_errors_only() -> None:
    """Every error with an exit code that `dls connect` can end with is exported."""
    exported = {getattr(dls, name) for name in dls.__all__ if name.endswith("Error")}
    with_code = {kind for kind in DlsError.__subclasses__() if "exit_code" in vars(kind)}
    assert with_code - exported == {kind for kind in with_code if kind.__name__ == "ListenError"}  # of `dls serve`


def test_importing_dls_is_cheap() -> None:
    """Neither paramiko nor a module of ours but the errors is imported; using a name imports the session."""
    code = (
        "import sys, dls\n"
        "assert not {'paramiko', 'sshtunnel', 'rich', 'click', 'asyncio'} & set(sys.modules)\n"
        "assert {name for name in sys.modules if name.startswith('dls.')} == {'dls.errors'}\n"
        "dls.connect\n"
        "assert 'paramiko' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_secret_is_shown() -> None:
    """The reprs of the options and of a server's state hide the password and the secret."""
    login = dls.LoginOptions(password="sesame", remote_dir="/there")
    state = ServerState(1, "sesame", "c", "r", "/s", None, "region", "cpu", "/l")
    for shown in (repr(login), repr(state), repr(dls.ServerOptions(engine="nninteractive"))):
        assert "sesame" not in shown
    assert "/there" in repr(login) and "nninteractive" in repr(dls.ServerOptions(engine="nninteractive"))


def test_connect_has_everything_that_the_command_has() -> None:
    """Each option of `dls connect` is a field of the options or a parameter, and the other way round."""
    options = {str(each.name) for each in connect.params} - ONLY_COMMAND
    names = {OTHER_NAMES.get(name, name) for name in options}
    kinds = (dls.LoginOptions, dls.ServerOptions, dls.ClusterOptions, dls.NetworkOptions)
    known = {each.name for kind in kinds for each in fields(kind)} - ONLY_LIBRARY
    assert {UNITS.sub("", name) for name in names} == {UNITS.sub("", name) for name in known}
    assert set(inspect.signature(dls.connect).parameters) == {
        "target", "server", "login", "cluster", "network", "local_port", "local_secret", "accept_licence", "page",
        "prompter", "reporter",
    }  # fmt: skip
    assert "stop_server" in inspect.signature(dls.Session.close).parameters
