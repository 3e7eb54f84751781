"""The way into a job: a connection to the SSH server that its batch script runs on the node.

First by a forwarded channel of the login node, else by a relay that runs there, else by a step of the scheduler. All
three go over the connection that is logged in already: nothing is asked.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from dls.errors import ConnectError, DlsError, HostError, LinkError
from dls.remote.carriers.inner import InnerServer
from dls.remote.cluster.scheduler import Entrance, Job
from dls.remote.host.scripts import render
from dls.remote.progress import Phase
from dls.remote.ssh.connection import Connection, Prohibited
from dls.remote.ssh.pinned import KeyPair, open_pinned
from dls.remote.ssh.pipe_shell import PipeShell
from dls.remote.ssh.streams import Stream

REACH_SECONDS = 6.0
"""Seconds that the login node may take to reach the node's port: a firewall may drop what is sent there."""

STEP_SECONDS = 40.0
"""Seconds that a step may take until a shell and an SSH server run in it."""


class NoWayIn(HostError):
    """The job runs, and none of the ways into it worked."""


def enter(
    login: Connection, job: Job, client_key: KeyPair, step: str, folder: str, remote_dir: str, phase: Phase
) -> Connection:
    """Return a connection to the job's node, inside the job; the login's connection is closed with it.

    `step` is the command line that runs `sh` in the job, empty where there is none; `folder` has the folders of all
    jobs. The login's connection stays open in an error: NoWayIn, or LinkError where that connection itself was lost.
    """
    assert job.entrance is not None
    failures: list[str] = []
    for address in job.entrance.addresses if job.entrance.port else ():
        try:
            return _enter_by_port(login, job, job.entrance, address, client_key)
        except DlsError as error:
            _keep(failures, error, login)
    if step:
        try:
            return _enter_by_step(login, job, step, folder, remote_dir, phase)
        except DlsError as error:
            _keep(failures, error, login)
    raise NoWayIn(
        f"The job {job.id} runs on {job.node}, but {login.target.label} leads to no SSH server there.",
        "The node needs OpenSSH's server, 7.8 or later, and the login node has to reach its ports.",
        "\n".join(failures),
    )


def _keep(failures: list[str], error: DlsError, login: Connection) -> None:
    """Note why a way failed; raises the error where the login itself was lost."""
    if not login.is_active():
        raise error
    failures.append(error.message)


def _enter_by_port(login: Connection, job: Job, entrance: Entrance, address: str, client_key: KeyPair) -> Connection:
    """Log in to the node's port: by a relay only where the login node reaches it and may not forward."""
    try:
        with _forwarded(login, address, entrance.port) as stream:
            return _log_in(login, stream, job, entrance, client_key)
    except Prohibited:
        with _relayed(login, address, entrance.port) as stream:
            return _log_in(login, stream, job, entrance, client_key)


@contextlib.contextmanager
def _forwarded(login: Connection, address: str, port: int) -> Iterator[Stream]:
    channel = login.open_tcp(address, port, timeout=REACH_SECONDS)
    with _closed_in_error(channel.raw) as stream:
        yield stream


@contextlib.contextmanager
def _relayed(login: Connection, address: str, port: int) -> Iterator[Stream]:
    """Let a shell on the login node become a relay: where it forwards nothing, it still runs commands."""
    with _closed_in_error(login.open_shell()) as stream:
        shell = PipeShell(login.target, stream)
        shell.start()
        if not shell.become(render("reach", ADDRESS=address, PORT=port)):
            raise ConnectError(f"{login.target.label} has no program that reaches another host.")
        yield stream


@contextlib.contextmanager
def _closed_in_error(stream: Stream) -> Iterator[Stream]:
    try:
        yield stream
    except BaseException:
        stream.close()
        raise


def _log_in(login: Connection, stream: Stream, job: Job, entrance: Entrance, client_key: KeyPair) -> Connection:
    target = replace(login.target, label=job.node, host=job.node, port=22, user=entrance.user, jumps=())
    return open_pinned(
        target,
        stream,
        entrance.host_key,
        client_key,
        kind=login.kind,
        credential=login.credential,
        carriers=(login,),
        new_host_key=login.new_host_key,
    )


def _deadline(seconds: float) -> Callable[[], None]:
    """Return what raises LinkError when it is called after so many seconds."""
    end = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > end:
            raise LinkError(f"The step did not begin within {seconds:.0f} s.")

    return check


def _enter_by_step(login: Connection, job: Job, step: str, folder: str, remote_dir: str, phase: Phase) -> Connection:
    """Run an SSH server for this one connection in a step of the job: each request takes some 40 ms more this way."""
    with _closed_in_error(login.open_shell()) as stream:
        outer = PipeShell(login.target, stream)
        outer.start()
        # The batch script ends a job that nobody uses: it does not see who is in a step.
        stay = 'while kill -0 $$; do : >"$DLS_JOB/used"; sleep 30; done </dev/null >/dev/null 2>&1 & exec sh'
        command = f'env DLS_JOB={shlex.quote(folder)}/"$CLUSTER-"{job.id} {step} -c {shlex.quote(stay)}'
        outer.become(f"{render('use_slurm', 'slurm')}\nprintf '%s step\\n' \"$READY\"\nexec {command}")
        target = replace(login.target, label=job.node, host=job.node, port=22, jumps=())
        shell = PipeShell(target, stream, _deadline(STEP_SECONDS))
        shell.start()
        inner = InnerServer(
            kind=login.kind,
            credential=login.credential,
            carriers=(login,),
            remote_dir=remote_dir,
            installs=True,
            phase=phase,
            new_host_key=login.new_host_key,
        )
        return inner.open(target, stream, shell)


__all__ = ["NoWayIn", "enter"]
