"""What stands in for the internet on a host that reaches none: the choice, which is pure, and what is chosen from.

The loan and the parcel are layers above this one: each is a `Supply`, and a session's `Supplier` opens the one that the
choice names, around the installation and what brings the weights. The server starts when it is closed again.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import replace
from enum import Enum
from typing import Protocol

from dls.errors import ClosedHostError
from dls.remote.host.install import InstallPlan, Tool
from dls.remote.host.network import NetworkOptions
from dls.remote.host.options import ServerOptions
from dls.remote.host.probe import HostReport
from dls.remote.host.provision import OWN_INTERNET, Provision
from dls.remote.host.reach import Reach, Verdict, ask
from dls.remote.progress import Phase, Phases
from dls.remote.ssh.connection import Connection


class Way(Enum):
    """Where the host gets what it lacks."""

    OWN = "its own internet"
    LOAN = "this computer's network"
    PARCEL = "a parcel"
    ASK = "the user's answer"
    """The loan, if the user agrees."""
    REFUSE = "nowhere"


def choose(reach: Reach, network: NetworkOptions) -> Way:
    """Decide where the host gets what it lacks.

    A host of which nobody can tell is treated as an open one, unless the user has offered the loan.
    """
    if network.parcel is not None:
        return Way.PARCEL
    if reach.is_closed:
        return {True: Way.LOAN, False: Way.REFUSE, None: Way.ASK}[network.lend]
    return Way.LOAN if network.lend and Verdict.UNKNOWN in (reach.packages, reach.weights) else Way.OWN


class Supply(Protocol):
    """What brings packages and weights to a host while it is open: a loan, or a parcel."""

    @property
    def provision(self) -> Provision:
        """What the installer is given."""

    @property
    def has_weights(self) -> bool:
        """Whether the host lacks a model that is brought."""

    def prepare(self, plan: InstallPlan, phase: Phase) -> InstallPlan:
        """Send what the installer needs beforehand, and return the plan that uses it; raises a DlsError."""

    def watch(self, what: str, total: int | None, phase: Phase) -> AbstractContextManager[None]:
        """Show in the phase, as long as the context lasts, how many bytes have come; `what` names them."""

    def bring_weights(self, plan: InstallPlan, phase: Phase) -> list[str]:
        """Bring the model to its place on the host, and return what to tell the user of it; raises a DlsError."""


class OnlyPip:
    """The host's own internet where only its pip reaches an index: uv would try in vain for minutes."""

    provision = OWN_INTERNET
    has_weights = False

    def prepare(self, plan: InstallPlan, phase: Phase) -> InstallPlan:
        """Return the plan with pip, where a Python of the host can make an environment."""
        return replace(plan, tool=Tool.PIP, uv="") if plan.base and plan.base.has_venv else plan

    def watch(self, what: str, total: int | None, phase: Phase) -> AbstractContextManager[None]:
        """Show nothing: nobody counts the bytes."""
        return contextlib.nullcontext()

    def bring_weights(self, plan: InstallPlan, phase: Phase) -> list[str]:
        """Do nothing: the server fetches them."""
        return []


class Supplier(Protocol):
    """Opens what stands in for the internet, for one session; it remembers what the user answered."""

    def open(
        self,
        connection: Connection,
        report: HostReport,
        plan: InstallPlan,
        options: ServerOptions,
        phases: Phases,
        *,
        may_ask: bool,
    ) -> AbstractContextManager[Supply | None]:
        """Ask the host what it reaches, where something is needed, and open what brings that; None where it does.

        Raises ClosedHostError where it does not, and nothing was lent or sent; with `may_ask`, the user is asked first.
        """


class OwnInternet:
    """Opens nothing: hosts have to reach what they need by themselves."""

    def open(
        self,
        connection: Connection,
        report: HostReport,
        plan: InstallPlan,
        options: ServerOptions,
        phases: Phases,
        *,
        may_ask: bool,
    ) -> AbstractContextManager[None]:
        """Raise ClosedHostError for a host that does not reach what it needs."""
        reach = ask(connection, report, plan, options)
        if reach.is_closed:
            raise ClosedHostError(f"{connection.target.label} does not reach {reach.missing}.")
        return contextlib.nullcontext()
