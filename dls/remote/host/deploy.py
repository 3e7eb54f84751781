"""Find the server on the host or set it up: the steps between the login and the open port."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

from dls import __version__
from dls.contract import DEFAULT_REMOTE_DIR, ServerState
from dls.engine_choice import EngineChoice
from dls.errors import DlsError, EngineError, ForwardError, LaunchError, LinkError
from dls.remote.host import automatic, host_models, install, landing, launch, status, summary
from dls.remote.host.look import look
from dls.remote.host.options import ServerOptions, choose_gpu
from dls.remote.host.packages import Code, requirements
from dls.remote.host.probe import Depth, HostReport
from dls.remote.host.proof import NotOurServer
from dls.remote.host.supply import OwnInternet, Supplier, Supply
from dls.remote.progress import Phases
from dls.remote.ssh.connection import Connection, Prohibited
from dls.remote.ssh.exceptions import forwarding_forbidden
from dls.remote.ssh.options import LoginOptions

ENGINE_POLL_SECONDS = 0.1
"""Seconds between two questions whether the engine is ready."""
FILES_RESTORED_SECONDS = 2.5
"""Seconds after which a running server has restored files that a cleaner of /tmp removed."""
LOG_TRIES = 20
LOG_PAUSE_SECONDS = 0.5
REPLACING = "Restarting the server: the old one finishes its requests first"
IDLE_SECONDS = 20.0
"""Seconds without a request after which no client is connected: a connected one asks more often."""


class Deployment:
    """The server on one host, found or set up over one connection; `probe` looks at the host first."""

    def __init__(
        self,
        login: LoginOptions,
        options: ServerOptions,
        connection: Connection,
        phases: Phases,
        code: Code,
        report: HostReport,
        *,
        supplier: Supplier,
        reconnecting: bool = False,
    ) -> None:
        self._login = login
        self._options = options
        self.choice = EngineChoice(options.engine)
        """The engine, and why it is that one."""
        self.connection = connection
        """The connection to the host with the server: another one where the login landed elsewhere."""
        self._phases = phases
        self._code = code
        self.report = report
        """The last probe of the host."""
        self._supplier = supplier
        self._reconnecting = reconnecting
        self._has_waited = False
        self._status: dict[str, object] = {}
        """The status with which the server identified itself."""

    @classmethod
    def probe(
        cls,
        login: LoginOptions,
        options: ServerOptions,
        connection: Connection,
        phases: Phases,
        *,
        supplier: Supplier | None = None,
        reconnecting: bool = False,
        node: str = "",
        report: HostReport | None = None,
    ) -> Deployment:
        """Probe the host, and go on to the one where the server runs, if the login landed on another one.

        `report` is a probe that was made already. `supplier` opens what stands in for the internet where the host
        reaches none; without one, such a host is refused. Set `reconnecting` after a lost link: a server that runs
        another release is then accepted, and nothing is asked. `node` is the name of the host of the server that was
        used before; raises LinkError where it runs there still, out of reach.
        """
        report = report or look(connection, login, options, phases)
        supplier = supplier or OwnInternet()
        deployment = cls(
            login, options, connection, phases, Code.installed(), report, supplier=supplier, reconnecting=reconnecting
        )
        keys = set() if report.job else {accepted.key for accepted in options.accepted}
        if there := landing.find_node(report, keys, connection.target.host, node):
            deployment._go_to(there)
        seen = deployment.report
        look_again = partial(look, deployment.connection, login, options, phases, Depth.GPUS, earlier=seen)
        deployment._options, deployment.choice, deployment.report = automatic.settle(options, seen, look_again)
        return deployment

    def _go_to(self, node: str) -> None:
        """Go on to another host of the same home, where the server runs; stay here where that can't be."""
        landed, report = self.connection, self.report
        try:
            self.connection = landing.log_in_there(landed, node)
        except DlsError as error:
            text = landing.describe(landed, report, node, error)
            if self._reconnecting:
                landed.close()  # the next login may land there
                raise LinkError(text, f"Connect to {node} itself.") from error
            self._phases.reporter.note(f"{text} Looking for one here; name {node} itself to use that one.")
            return
        try:
            self._probe_again(Depth.SERVER)
        except BaseException:
            self.connection.transport.close()
            raise
        self._phases.reporter.note(f"The server runs on {node}: went there from {report.hostname}.")

    @property
    def protocol(self) -> str:
        """Version of the protocol that the server speaks."""
        return str(self._status.get("version", ""))

    @property
    def ended_on_purpose(self) -> bool:
        """Whether no server with these options runs, and the last one was ended on purpose."""
        ours = {options.run_dir(self.report.run_dir) for options in self._options.accepted}
        return bool(ours & self.report.ended) and not any(s.run_dir in ours for s in self.report.servers)

    def find_or_start(self) -> ServerState:
        """Find the running server or set one up; with a port and a secret where its socket can't be forwarded.

        Raises HostError, InstallError or LaunchError for what fails on the host, and ForwardError when the host
        forbids every kind of forwarding.
        """
        try:
            return self._find() or self._set_up(self._options)
        except Prohibited:
            raise
        except ForwardError:
            # OpenSSH says "connect failed" both for a forbidden socket and for one where nobody listens.
            self._phases.reporter.note(
                f"{self.connection.target.label} forwards no Unix sockets: using a loopback port and a secret there."
            )
        return self._set_up(replace(self._options, tcp=True))

    def _find(self) -> ServerState | None:
        keys = {options.key for options in self._options.accepted}
        for state in self.report.servers:
            if state.request in keys and self._accepts_code(state):
                try:
                    self._status = status.identify(self.connection, state)
                except Prohibited:
                    raise
                except NotOurServer as error:
                    self._phases.reporter.note(f"{error.message} Starting another.")
                    continue
                except ForwardError:  # nobody listens there any more
                    continue
                if self._status:
                    self.report = summary.with_gpu(self.report, self._status)
                    return state
        return None

    def _accepts_code(self, state: ServerState) -> bool:
        """Return whether the server's code is ours or newer; after a lost link, any code is accepted.

        Two clients of different versions would otherwise end each other's servers again and again.
        """
        if state.code == self._code.key or self._reconnecting:
            return True
        if summary.version_numbers(state.version) > summary.version_numbers(__version__):
            self._phases.reporter.note(f"The server there is of a newer dls ({state.version}) and stays.")
            return True
        return False

    def _set_up(self, options: ServerOptions) -> ServerState:
        # Before anything is installed or ended there.
        if self.connection.forbids_forwarding():
            raise forwarding_forbidden(self.connection.target.label)
        needed = requirements(options.engine)
        if options.needs_gpus and not self.report.knows_gpus:
            self._probe_again(Depth.GPUS, self.report)
        if not (self.report.full or install.has_environment(self.report, needed)):
            self._probe_again(Depth.ALL, self.report)
        plan = install.plan(self.report, needed, self._code.key)
        host_models.check_model(self.connection, self._login, options, plan)
        self._supply(plan, options)
        replaced = self._stop_unused(options)
        try:
            return self._launch(options, plan, replaced)
        except launch.Changed as error:
            if not error.is_code_only:
                return self._reinstall(options, replaced)
            self._phases.reporter.note("Our code there is damaged: sending it again.")
            self._install(replace(plan, make_environment=False, send_code=True, replace_code=True), None)
            return self._launch(options, plan, replaced)
        except LaunchError as error:
            said = f"{error.detail}\n{error.message}"
            if launch.is_there_already(said) and not self._has_waited:
                return self._find_after_wait(options)
            if not launch.is_damaged(said) or plan.make_environment:
                raise
        return self._reinstall(options)

    def _probe_again(self, depth: Depth, earlier: HostReport | None = None) -> None:
        self.report = look(self.connection, self._login, self._options, self._phases, depth, earlier=earlier)

    def _reinstall(self, options: ServerOptions, replaced: ServerState | None = None) -> ServerState:
        self._phases.reporter.note("The installation there is damaged: installing it again.")
        self._probe_again(Depth.ALL, self.report)
        plan = install.plan_reinstallation(self.report, requirements(options.engine), self._code.key)
        install.mark_incomplete(self.connection, plan)
        self._supply(plan, options)
        return self._launch(options, plan, replaced)

    def _find_after_wait(self, options: ServerOptions) -> ServerState:
        """Find the server whose files were removed: it restores them within seconds."""
        self._has_waited = True
        time.sleep(FILES_RESTORED_SECONDS)
        self._probe_again(Depth.SERVER, self.report)
        return self._find() or self._set_up(options)

    def _supply(self, plan: install.InstallPlan, options: ServerOptions) -> None:
        """Install what is missing, and bring the weights to a host that can't fetch them.

        The server outlives what stands in for the internet meanwhile, so it has to find its model there.
        """
        with self._supplier.open(
            self.connection, self.report, plan, options, self._phases, may_ask=not self._reconnecting
        ) as supply:
            self._install(plan, supply)
            if supply is not None and supply.has_weights:
                where = self.connection.target.label
                with self._phases("weights", f"Bringing the model to {where}") as phase:
                    notes = supply.bring_weights(plan, phase)
                    phase.result = f"The model is on {where}"
                for note in notes:
                    self._phases.reporter.note(note)

    def _install(self, plan: install.InstallPlan, supply: Supply | None) -> None:
        if plan.nothing_to_do:
            return
        with self._phases("install", f"Setting up {self.connection.target.label}") as phase:
            own_caches = self._login.remote_dir != DEFAULT_REMOTE_DIR
            if supply is None or not plan.make_environment:
                result = install.install(self.connection, plan, self._code, phase, own_caches=own_caches)
            else:
                supplied = supply.prepare(plan, phase)
                with supply.watch("packages", plan.download_bytes, phase):
                    result = install.install(
                        self.connection, supplied, self._code, phase, own_caches=own_caches, provision=supply.provision
                    )
            phase.result = result
        # A second attempt, on a port instead of a socket, must not install again.
        self.report = replace(
            self.report,
            environments=self.report.environments | {plan.environment.rpartition("/")[2]},
            codes=self.report.codes | {self._code.key},
        )

    def _stop_unused(self, options: ServerOptions) -> ServerState | None:
        """End servers with other options that nobody uses, and return the one that the new server replaces, if any.

        Their sessions stay on the host.
        """
        replaced = None
        for state in self.report.servers:
            # It may run in the other one of the host's two places for run directories.
            if state.run_dir.rpartition("/")[2] == options.key:
                replaced = state
            # A server directly in the run directory is one of a release that had no directory for each server.
            elif state.run_dir == self.report.run_dir or self._is_idle(state):
                with self._phases("stop", "Ending a server with other options that nobody uses") as phase:
                    launch.stop(self.connection, state)
                    phase.result = f"Ended a server with other options ({state.engine}); its sessions stay"
        return replaced

    def _is_idle(self, state: ServerState) -> bool:
        """Return whether no client is connected to the server: each asks for its status often.

        A server that does not answer, or not as it should, counts as idle too.
        """
        idle = self._get_status(state).get("idle")
        return not isinstance(idle, int | float) or idle > IDLE_SECONDS

    def _launch(
        self, options: ServerOptions, plan: install.InstallPlan, replaced: ServerState | None = None
    ) -> ServerState:
        gpu = None if self.report.job else choose_gpu(self.report.gpus, options)
        with self._phases("launch", "Starting the server" if replaced is None else REPLACING) as phase:
            state = launch.launch(self.connection, self.report, plan, options, self._code.key, gpu, replaced)
            self.report = replace(self.report, servers=(state,))
            self._status = status.identify(self.connection, state)
            if not self._status:
                raise LaunchError(
                    f"The server on {self.connection.target.label} started but does not answer.",
                    f"Its log: {state.log}",
                )
            anew = "" if replaced is None else " anew; its sessions stay"
            phase.result = f"Started the server ({state.engine}){anew}"
        return state

    def wait_for_engine(self, state: ServerState) -> ServerState:
        """Wait until the server has downloaded, loaded and warmed up its model, and show the progress.

        Returns the state with the device that the engine chose; raises EngineError when the engine fails.
        """
        # A server that was ready when it identified itself is not asked again: a warm connect saves a round trip.
        current = self._get_status(state) if "state" in self._status else self._status
        if not current or "state" in current:
            current = self._poll_engine(state, current)
        state = replace(state, device=str(current.get("device", state.device)))
        if notice := str(current.get("notice", "")):
            self._phases.reporter.note(notice)
        if state.device == "cpu" and state.engine != "region":
            self._phases.reporter.note(
                f"{state.engine} computes on the CPU there: a click takes from half a minute on, not a second."
            )
        return state

    def _poll_engine(self, state: ServerState, current: dict[str, object]) -> dict[str, object]:
        with self._phases("engine", "Getting the engine ready") as phase:
            download = status.DownloadWatch(phase)
            while current.get("state") == "loading":
                phase.update(str(current.get("text", "")))
                download.show(current)
                time.sleep(ENGINE_POLL_SECONDS)
                current = self._get_status(state)
            if not current or "state" in current:
                raise self._engine_error(state, str(current.get("error", "")))
            phase.result = f"The engine is ready on {current.get('device', 'the host')}"
        return current

    def _get_status(self, state: ServerState) -> dict[str, object]:
        try:
            return status.get_status(self.connection, state)
        except ForwardError:  # the server ended: nobody listens there any more
            return {}

    def _engine_error(self, state: ServerState, reason: str) -> EngineError:
        for _ in range(LOG_TRIES):
            tail = self.connection.run(launch.log_script(state.log, launch.LOG_LINES, follow=False), timeout=30).stdout
            logged, hint = launch.find_error(tail)
            if reason or logged:
                break
            time.sleep(LOG_PAUSE_SECONDS)  # a server closes its connections before it writes why it ends
        message = reason or logged or "The server ended while it loaded its engine."
        where, detail = self.connection.target.label, launch.without_end(tail)
        return EngineError(f"The engine on {where} is not ready. {message}", hint or f"Its log: {state.log}", detail)
