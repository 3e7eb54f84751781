"""Whether a host reaches what an installation needs: the package index, and the model hub where weights are wanted.

The host's own Python asks, within seconds, as the installation would: the index that its uv and pip are configured for,
by its proxies. So a host with a mirror is not closed, and no name of an index is written here.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from dls.errors import LinkError
from dls.remote.host.install import InstallPlan
from dls.remote.host.options import ServerOptions
from dls.remote.host.probe import HostReport
from dls.remote.host.scripts import read_reach_out, render
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.shell import ScriptRunner

LIMIT_SECONDS = 3
"""Seconds that a host without Python has for each question; reach_out.py has limits of its own."""
SILENCE_SECONDS = 15.0
"""Seconds without a word after which the question is left open."""
HELP_SECONDS = 3.0
"""Seconds that uv may take here to print its help."""
BUILT_IN = re.compile(r"by\s+default:\s+<?(https?://[^\s>)\]]+)")
"""How uv's help names its built-in index."""


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,252}")
"""A name of a host, with a port where it has one."""


class Verdict(Enum):
    """What the host's answer says of one need."""

    OPEN = "open"
    CLOSED = "closed"
    UNKNOWN = "unknown"
    """Nobody can tell without trying: the host is treated as an open one."""
    THERE = "there"
    """The host has it already."""
    NOT_ASKED = "not asked"


@dataclass(frozen=True)
class Reach:
    """What a host reaches; each text names the hosts that were asked for."""

    packages: Verdict = Verdict.NOT_ASKED
    weights: Verdict = Verdict.NOT_ASKED
    index: str = ""
    """The names of the package indexes, separated by commas."""
    hub: str = ""
    only_pip: bool = False
    """Whether pip reaches its index, a mirror, and uv does not reach the one that it has."""

    @property
    def is_closed(self) -> bool:
        """Whether something is needed that the host can't get by itself."""
        return Verdict.CLOSED in (self.packages, self.weights)

    def describe(self, target: str) -> str:
        """Return what the host said, as a sentence."""
        if self.is_closed:
            return f"{target} does not reach {self.missing}"
        if Verdict.UNKNOWN in (self.packages, self.weights):
            return f"{target} does not say whether it reaches what it needs"
        return f"{target} reaches what it needs"

    @property
    def missing(self) -> str:
        """What the host does not reach, in words: "its package index", "the model hub (huggingface.co)"."""
        parts = ["its package index" + (f" ({self.index})" if self.index else "")] * (self.packages is Verdict.CLOSED)
        parts += ["the model hub" + (f" ({self.hub})" if self.hub else "")] * (self.weights is Verdict.CLOSED)
        return " and ".join(parts)


def may_need_weights(options: ServerOptions) -> bool:
    """Return whether a server with these options would download a model that its host does not have."""
    is_folder = options.model is not None and "/" in options.model
    return options.engine == "nninteractive" and options.network and not is_folder


def reach_script(report: HostReport, plan: InstallPlan, options: ServerOptions, default_index: str = "") -> str:
    """Return the script that asks."""
    # A pip tells where packages come from, and which proxy leads there.
    pythons = sorted(report.pythons, key=lambda python: (not python.has_pip, not python.has_venv))
    paths = [python.path for python in pythons] if plan.make_environment else [plan.interpreter]
    return render(
        "reach_out",
        "paths",
        WITH_PACKAGES="1" if plan.make_environment else "",
        WITH_WEIGHTS="1" if may_need_weights(options) else "",
        PYTHON=paths[0] if paths else "",
        UV=report.uv,
        DEFAULT_INDEX=default_index,
        MODELS_PATH=options.models_path or "",
        MODEL=options.model or "",
        LIMIT=LIMIT_SECONDS,
        ASK=read_reach_out(),
    )


def unanswered(plan: InstallPlan, options: ServerOptions) -> Reach:
    """Return what is known of a host that says nothing: what it was asked for is unknown."""
    return Reach(
        Verdict.UNKNOWN if plan.make_environment else Verdict.NOT_ASKED,
        Verdict.UNKNOWN if may_need_weights(options) else Verdict.NOT_ASKED,
    )


def parse(text: str, nothing: Reach) -> Reach:
    """Read what the script printed; where it does not tell, `nothing` does."""
    rows = [line.split("\t") for line in text.splitlines() if line.count("\t") == 2]
    found = {name: (_verdict(word), _names(asked)) for name, word, asked in rows}
    packages, index = found.get("packages", (nothing.packages, ""))
    weights, hub = found.get("weights", (nothing.weights, ""))
    return Reach(packages, weights, index, hub, only_pip=["installer", "pip", ""] in rows)


def _verdict(word: str) -> Verdict:
    with contextlib.suppress(ValueError):
        return Verdict(word)
    return Verdict.UNKNOWN


def _names(text: str) -> str:
    """Return the names of hosts; nothing for a text that could be anything else in a question to the user."""
    names = [word.removeprefix("https://").partition("/")[0] for word in text.split()]
    return ", ".join(names) if all(map(NAME.fullmatch, names)) else ""


def ask(connection: ScriptRunner, report: HostReport, plan: InstallPlan, options: ServerOptions) -> Reach:
    """Ask the host what the plan needs, over the connection; a host that says nothing in time may be an open one.

    A host that needs nothing is not asked.
    """
    if not (plan.make_environment or may_need_weights(options)):
        return Reach()
    knows_index = report.uv or any(python.has_pip or python.has_venv for python in report.pythons)
    default = default_index() if plan.make_environment and not knows_index else ""
    try:
        script = reach_script(report, plan, options, default)
        return parse(connection.run(script, timeout=SILENCE_SECONDS).stdout, unanswered(plan, options))
    except LinkError:
        if isinstance(connection, Connection) and connection.is_active():
            return unanswered(plan, options)
        raise


def default_index() -> str:
    """Return the built-in index of this computer's pip or uv; empty where neither is here."""
    return next(filter(None, _built_in()), "")


def _built_in() -> Iterator[str]:
    with contextlib.suppress(Exception):  # no pip, or one that has it elsewhere
        yield str(importlib.import_module("pip._internal.models.index").PyPI.simple_url)
    if uv := shutil.which("uv"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                [uv, "pip", "install", "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                encoding="utf-8", errors="replace", timeout=HELP_SECONDS, check=False,
            )  # fmt: skip
            found = BUILT_IN.search(done.stdout)
            yield found[1] if found else ""
