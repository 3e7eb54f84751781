"""`dls status`: what runs on a host, or on all known hosts."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from dls.cli.help import GroupedCommand
from dls.cli.login_options import build_login_options, login_options
from dls.cli.target_argument import optional_target_argument
from dls.errors import DlsError, TargetError

if TYPE_CHECKING:
    from dls.cli.events import Closeable
    from dls.remote.commands import HostStatus
    from dls.remote.host.facts import ServerFacts
    from dls.remote.ssh.options import LoginOptions

AT_ONCE = 8
"""Most hosts that are asked at once."""


@click.command(cls=GroupedCommand)
@optional_target_argument
@login_options
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines to standard output.")
def status(target: str, as_json: bool, **options: Any) -> None:
    """Show what runs on HOST: server, GPU, sessions, last request.

    Without HOST, all known hosts are asked, each by its profile, and nobody here: one that wants a password is told.

    Example: dls status ann@gpuhost
    """
    from dls.cli.console import terminal
    from dls.cli.panels import show_facts
    from dls.remote.commands import read_status

    login = build_login_options(options)
    with terminal(quiet=True) as (_, reporter, prompter):
        if not (target or login.via):
            _show_all(options, login, reporter, as_json=as_json)
            return
        found = read_status(target, login, prompter, reporter)
        reporter.close()
    if as_json:
        _write(found)
    else:
        show_facts(found.target or found.hostname, list_rows(found))


def list_rows(status: HostStatus) -> list[tuple[str, str]]:
    """Return the rows of the panel: each a name and a text."""
    from dls.remote.durations import format_duration, format_short

    trip = "" if math.isinf(status.round_trip) else f"; a round trip takes {format_short(status.round_trip)}"
    rows = [("Link", f"logged in to {status.hostname} in {status.seconds:.2f} s{trip}")]
    for job in status.jobs:
        left = "" if job.seconds_left is None else f", for another {format_duration(job.seconds_left)}"
        rows.append(("Job", f"{job.id} {f'on {job.node}' if job.node else 'waits'}{left}"))
    if not status.servers:
        return [*rows, ("Server", "none runs")]
    for state, facts in status.servers:
        release = f"dls {facts.release}, " if facts.release else ""
        rows += [("Server", f"{release}process {state.pid}"), *list_server_rows(facts), ("Log", state.log)]
    return rows


def list_server_rows(facts: ServerFacts) -> list[tuple[str, str]]:
    """Return what a server says of itself as rows."""
    rows = [("Engine", facts.describe_engine())]
    if facts.gpu is not None:
        rows.append(("GPU", str(facts.gpu)))
    rows.append(("Sessions", facts.describe_sessions()))
    if facts.last is not None:
        rows.append(("Last request", facts.last.describe()))
    return [*rows, ("Ends", facts.describe_end())]


def _write(status: HostStatus) -> None:
    from dataclasses import asdict

    from dls.cli.events import write_event

    servers = [{"pid": state.pid, "log": state.log, **asdict(facts)} for state, facts in status.servers]
    jobs = [{"id": job.id, "node": job.node, "seconds_left": job.seconds_left} for job in status.jobs]
    trip = None if math.isinf(status.round_trip) else round(status.round_trip, 4)
    fields = {"host": status.target, "node": status.hostname, "login_seconds": round(status.seconds, 3)}
    write_event("status", **fields, round_trip=trip, servers=servers, jobs=jobs)


def _show_all(options: dict[str, Any], login: LoginOptions, reporter: Closeable, *, as_json: bool) -> None:
    """Ask all known hosts; fails as the first one did where none answered."""
    from dls.cli.console import Console, show_table
    from dls.cli.events import write_event
    from dls.cli.known_hosts import list_targets

    targets = list_targets()
    if not targets:
        raise TargetError("No host was used before.", "Name one: dls status ann@gpuhost")
    reporter.begin("look", f"Asking {len(targets)} hosts" if len(targets) > 1 else f"Asking {targets[0]}")
    rows, failures = [], []
    for target, answer in _ask_all(targets, options, login):
        if isinstance(answer, DlsError):
            failures.append(answer)
            rows.append((target, answer.message, "", "", ""))
            if as_json:
                write_event("status", host=target, error=answer.message, exit_code=answer.exit_code)
            continue
        rows += _summarize(answer)
        if as_json:
            _write(answer)
    reporter.close()
    if not as_json:
        show_table(Console(), ("host", "engine", "GPU", "sessions", "last request"), rows)
    sys.stdout.flush()
    if len(failures) == len(targets):
        raise failures[0]


def _ask_all(
    targets: list[str], options: dict[str, Any], login: LoginOptions
) -> Iterator[tuple[str, HostStatus | DlsError]]:
    """Ask the hosts, several at once, and yield what each said, or why it did not, in their order.

    One that does not answer takes up to half a minute, so the others must not wait for it. Ctrl-C waits for none.
    """
    from dls.remote.futures import wait_for

    slots = threading.Semaphore(AT_ONCE)
    answers: dict[str, Future[HostStatus]] = {target: Future() for target in targets}
    for target, answer in answers.items():
        try:
            its_login = _login_for(target, options, login)
        except DlsError as error:
            answer.set_exception(error)
            continue
        threading.Thread(target=_ask, args=(target, its_login, slots, answer), daemon=True).start()
    for target, answer in answers.items():
        try:
            yield target, wait_for(answer)
        except DlsError as error:
            yield target, error


def _login_for(target: str, options: dict[str, Any], login: LoginOptions) -> LoginOptions:
    """Return the options of the login with the host's profile; the password is not read again."""
    from dls.cli import profiles

    own = profiles.apply(click.get_current_context(), target, options)
    own |= {"password_file": None, "verbose": 0}
    return replace(build_login_options(own), password=login.password, verbose=login.verbose)


def _ask(target: str, login: LoginOptions, slots: threading.Semaphore, answer: Future[HostStatus]) -> None:
    from dls.remote.commands import read_status
    from dls.remote.progress import Silent
    from dls.remote.ssh.prompts import NoPrompter

    with slots:
        try:
            answer.set_result(read_status(target, login, NoPrompter(), Silent()))
        except BaseException as error:  # it is raised where the answer is waited for
            answer.set_exception(error)


def _summarize(status: HostStatus) -> list[tuple[str, str, str, str, str]]:
    if not status.servers:
        return [(status.target, "no server runs", "", "", "")]
    return [
        (
            status.target,
            facts.describe_engine(),
            str(facts.gpu or ""),
            facts.describe_sessions(),
            facts.last.describe() if facts.last else "none",
        )
        for _, facts in status.servers
    ]
