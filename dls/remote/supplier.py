"""What stands in for the internet of a host that reaches none: the loan and the parcel, for one session."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dls.errors import ClosedHostError
from dls.remote.futures import wait_for
from dls.remote.host.closed import closed_error, consent_question
from dls.remote.host.install import InstallPlan
from dls.remote.host.network import NetworkOptions
from dls.remote.host.options import ServerOptions
from dls.remote.host.probe import HostReport
from dls.remote.host.provision import Provision
from dls.remote.host.reach import Reach, Verdict, ask, may_need_weights
from dls.remote.host.supply import OnlyPip, Supply, Way, choose
from dls.remote.login import LoginOptions
from dls.remote.parcel.archive import Parcel
from dls.remote.parcel.supply import ParcelSupply
from dls.remote.progress import Phase, Phases
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import CannotAsk, NoPrompter, Prompter

if TYPE_CHECKING:
    from dls.remote.loan.laptop import Laptop
    from dls.remote.loan.loan import Loan
    from dls.remote.loan.terms import Terms


class SessionSupplier:
    """Opens a loan or a parcel where a host needs one; the user is asked once a session."""

    def __init__(
        self, target: str, login: LoginOptions, network: NetworkOptions, prompter: Prompter, *, may_ask: bool
    ) -> None:
        """`may_ask` says whether somebody is there who can answer."""
        self._target = target
        self._login = login
        self._network = network
        self._prompter = prompter
        self._may_ask = may_ask
        self._parcel = Parcel.open(network.parcel) if network.parcel else None

    @property
    def packed_engine(self) -> str | None:
        """The engine for which there is a parcel; None without one."""
        return self._parcel.manifest.engine if self._parcel else None

    @contextlib.contextmanager
    def open(
        self,
        connection: Connection,
        report: HostReport,
        plan: InstallPlan,
        options: ServerOptions,
        phases: Phases,
        *,
        may_ask: bool,
    ) -> Iterator[Supply | None]:
        """Ask the host what it reaches, and open what it needs, as `Supplier` says."""
        if self._parcel is not None:
            yield ParcelSupply(self._parcel, connection, report, options)
            return
        reach, terms = Reach(), None
        if plan.make_environment or may_need_weights(options):
            where, looking = connection.target.label, self._look_ahead()
            reach = self._ask_host(connection, report, plan, options, phases)
            refusal = closed_error(where, self._login, self._target, report, plan, options, reach)
            terms = self._decide(where, plan, reach, looking, refusal, phases, may_ask=may_ask and self._may_ask)
        if terms is None:
            yield OnlyPip() if reach.only_pip else None
            return
        with self._lend(connection, terms, phases) as loan:
            yield LoanSupply(loan, connection, options, brings_weights(reach))

    def _look_ahead(self) -> Future[Laptop] | None:
        """Begin to look what this computer knows of the internet, while the host is asked: pip takes its time."""
        if not self._network.lend:
            return None
        from dls.remote.loan.laptop import look

        executor = ThreadPoolExecutor(1, "dls-look")
        looking = executor.submit(look)
        executor.shutdown(wait=False)
        return looking

    def _ask_host(
        self, connection: Connection, report: HostReport, plan: InstallPlan, options: ServerOptions, phases: Phases
    ) -> Reach:
        where = connection.target.label
        with phases("internet", f"Looking whether {where} reaches the internet") as phase:
            reach = ask(connection, report, plan, options)
            phase.result = reach.describe(where)
        return reach

    def _decide(
        self,
        where: str,
        plan: InstallPlan,
        reach: Reach,
        looking: Future[Laptop] | None,
        refusal: ClosedHostError,
        phases: Phases,
        *,
        may_ask: bool,
    ) -> Terms | None:
        """Return what is lent; None for nothing. Raises the refusal where something has to be, and may not."""
        way = choose(reach, self._network)
        if way is Way.OWN:
            return None
        if way is Way.REFUSE or (way is Way.ASK and not may_ask):
            raise refusal
        with phases("terms", "Asking this computer's package index where its files are") as phase:
            terms = _prepare(plan, reach, wait_for(looking) if looking else None)
            phase.result = f"This computer reaches {terms.describe()}"
        if way is Way.ASK:
            try:
                names = [str(name) for name in terms.names.all]
                answer = self._prompter.answer(consent_question(where, reach, names, terms.logins))
            except CannotAsk:
                raise refusal from None
            # The answer holds for the whole session: nobody is asked when a lost link is restored.
            self._network = replace(self._network, lend=answer.strip().lower() in ("y", "yes"))
            if not self._network.lend:
                raise refusal
        return terms

    @contextlib.contextmanager
    def _lend(self, connection: Connection, terms: Terms, phases: Phases) -> Iterator[Loan]:
        from dls.remote.loan.loan import lend

        where = connection.target.label
        with contextlib.ExitStack() as opened:
            with phases("lend", f"Lending this computer's network to {where}") as phase:
                loan = opened.enter_context(lend(connection, terms, phase=phase, remote_dir=self._login.remote_dir))
                phase.result = f"{where} reaches, until the installation is done: {terms.describe()}"
            for note in terms.laptop.left_out:
                phases.reporter.note(note)
            yield loan


def _prepare(plan: InstallPlan, reach: Reach, known: Laptop | None) -> Terms:
    """Find out here what would be lent; raises ClosedHostError where this computer has no internet either."""
    from dls.remote.loan.terms import Needs, prepare

    makes = plan.make_environment
    torch, python = makes and bool(plan.torch_backend), makes and plan.base is None
    return prepare(Needs(packages=makes, torch=torch, weights=brings_weights(reach), python=python), known)


def can_answer(prompter: Prompter | None) -> bool:
    """Return whether a prompter has an answer to any question."""
    return prompter is not None and type(prompter).answer is not NoPrompter.answer


def brings_weights(reach: Reach) -> bool:
    """Return whether a host needs a model and may not reach the hub."""
    return reach.weights in (Verdict.CLOSED, Verdict.UNKNOWN)


@dataclass(frozen=True)
class LoanSupply:
    """A loan, as the installation uses it."""

    loan: Loan
    connection: Connection
    options: ServerOptions
    has_weights: bool

    @property
    def provision(self) -> Provision:
        """What the installer is given."""
        traffic = self.loan.traffic
        return Provision(
            self.loan.wrap, self.loan.redact, self.loan.explain, lambda: time.monotonic() - traffic.silent_for
        )

    def prepare(self, plan: InstallPlan, phase: Phase) -> InstallPlan:
        """Return the plan: over a loan, everything is fetched as on other hosts."""
        return plan

    def watch(self, what: str, total: int | None, phase: Phase) -> AbstractContextManager[None]:
        """Show how many bytes have come."""
        return self.loan.shown(phase, what, total)

    def bring_weights(self, plan: InstallPlan, phase: Phase) -> list[str]:
        """Let the host fetch the model."""
        from dls.remote.loan.model import fetch_weights

        return fetch_weights(self.connection, plan, self.options, self.loan, phase)
