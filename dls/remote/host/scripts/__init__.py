"""POSIX shell scripts that run on the host.

They are read here, on the laptop, and travel over the connection; the host's copy of our package does not have them. A
script takes its values as `NAME='value'` lines and, for a list, as its positional parameters. Each file names them in
its first lines, and `scripts/check` runs shellcheck over every file.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterable
from importlib import resources

_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
"""Pattern of a shell variable that a script may take."""


def render(name: str, *libraries: str, arguments: Iterable[str] = (), **values: str | int) -> str:
    """Return a script as it goes to the host: its values, its positional parameters, its libraries and its text.

    Every value and argument is quoted, so nothing in it is run. Raises ValueError for a name that is no upper-case
    shell variable.
    """
    for variable in values:
        if not _NAME.fullmatch(variable):
            raise ValueError(f"{variable!r} is no name of a value.")
    assignments = [f"{variable}={shlex.quote(str(value))}" for variable, value in values.items()]
    parameters = " ".join(["set --", *(shlex.quote(argument) for argument in arguments)])
    return "\n".join([*assignments, parameters, *(_read(library) for library in libraries), _read(name)])


@functools.cache
def read_verifier() -> str:
    """Return the text of verify.py, which a script hands to the Python of an environment."""
    return resources.files(__name__).joinpath("verify.py").read_text(encoding="utf-8")


@functools.cache
def read_reach_out() -> str:
    """Return the text of reach_out.py, which a script hands to a Python of the host."""
    return resources.files(__name__).joinpath("reach_out.py").read_text(encoding="utf-8")


@functools.cache
def read_ssh_server() -> str:
    """Return the text of ssh_server.py, which a script hands to the Python of an environment with asyncssh."""
    return resources.files(__name__).joinpath("ssh_server.py").read_text(encoding="utf-8")


@functools.cache
def read_model_fetcher() -> str:
    """Return the text of fetch_model.py, which a script hands to the Python of an environment with our code."""
    return resources.files(__name__).joinpath("fetch_model.py").read_text(encoding="utf-8")


@functools.cache
def _read(name: str) -> str:
    return resources.files(__name__).joinpath(f"{name}.sh").read_text(encoding="utf-8")
