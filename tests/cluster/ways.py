"""What the tests of the cluster share: connecting, stopping, and looking at what runs."""

from __future__ import annotations

from typing import Any

import dls
from dls.remote.commands import stop_server
from dls.remote.progress import Silent
from dls.remote.ssh.prompts import NoPrompter
from tests.cluster.lab import HOST, LOGIN, NODES, Cluster
from tests.support.connecting import RecordingReporter
from tests.support.processes import free_port


class QueueReporter(RecordingReporter):
    """Remembers the states of the queue too."""

    def __init__(self) -> None:
        super().__init__()
        self.updates: list[str] = []

    def update(self, text: str) -> None:
        self.updates.append(text)


def login_options(cluster: Cluster, **more: Any) -> dls.LoginOptions:
    """Return the options of a login as the lab's user."""
    return dls.LoginOptions(ssh_config=cluster.config, **more)


def connected(
    cluster: Cluster,
    reporter: RecordingReporter | None = None,
    *,
    host: str = HOST,
    server: dls.ServerOptions | None = None,
    login: dict[str, Any] | None = None,
    **job: Any,
) -> dls.Session:
    """Connect to the login node; `job` are options of the job."""
    job.setdefault("gres", "gpu:1")  # most tests are about GPUs, which the region engine would not ask for
    return dls.connect(
        host,
        login=login_options(cluster, **(login or {})),
        cluster=dls.ClusterOptions(**job),
        server=server or dls.ServerOptions("region"),
        local_port=free_port(),
        reporter=reporter or RecordingReporter(),
    )


def stop(cluster: Cluster) -> bool:
    """Run what `dls stop` runs."""
    return stop_server(HOST, login_options(cluster), NoPrompter(), Silent())


def nothing_runs(cluster: Cluster) -> bool:
    """Whether the user has no process on any node; sshd's own for a login that has ended are the admin's."""
    return not any(
        line for node in (LOGIN, *NODES) for line in cluster.processes(node) if "sshd" not in line or "jobs/" in line
    )
