"""Logins that land on another host than the one where the server runs.

One name may lead to several hosts that share a home, a different one each time: the login nodes of a cluster. A server
records in the remote directory on which of them it runs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from dls.errors import DlsError, HostKeyError
from dls.remote.host.probe import HostReport, hash_route
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import NoPrompter


def find_node(report: HostReport, keys: Collection[str], host: str, expected: str = "") -> str:
    """Return the node on which the server with one of these options runs, where it is not this one; else nothing.

    Only a server counts to which a client went by the same name `host`: who names two hosts that share a home wants
    each of them. `expected` is the node of the server that was used before: its sessions are there, whatever runs here.
    """
    others = [record for record in report.elsewhere if record.key in keys and record.node != report.hostname]
    if any(record.node == expected for record in others):
        return expected
    is_here = any(state.request in keys for state in report.servers)
    nodes = {record.node for record in others if record.route == hash_route(host)}
    return "" if is_here or expected == report.hostname else min(nodes, default="")


def log_in_there(connection: Connection, node: str) -> Connection:
    """Log in to another host of the same home, with the connection as the way there; raises DlsError.

    The person is asked nothing: only keys are offered, and only to a host whose key is known, either as that of the
    name that the person typed or under the host's own name.
    """
    target = replace(connection.target, label=node, host=node, jumps=())
    try:
        shared = replace(target, host_key_alias=connection.target.known_hosts_name)
        return Connection.open(shared, NoPrompter(), jump_host=connection)
    except HostKeyError:
        return Connection.open(replace(target, host_key_alias=""), NoPrompter(), jump_host=connection)


def describe(connection: Connection, report: HostReport, node: str, error: DlsError) -> str:
    """Return where the server is, where the login landed, and why there is no way from here to there."""
    return (
        f"The server runs on {node}, but the login to {connection.target.label} landed on {report.hostname}, and there "
        f"is no way to {node} from there without a question. {error.message}"
    )
