"""Run one forward in this process, and print its port.

`forwards.py ours CONFIG SOCKET CARRIER` leads to a Unix socket, as `dls connect` does: on a port it would ask for a
proof, which the plain server of the benchmark can't give. `forwards.py plain CONFIG PORT` is sshtunnel.
"""

from __future__ import annotations

import sys
from pathlib import Path

import paramiko
import sshtunnel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dls.contract import ServerState
from dls.remote.login import LoginOptions, log_in, resolve_hops
from dls.remote.progress import Phases, Silent
from dls.remote.ssh.prompts import NoPrompter
from dls.remote.tunnel.endpoint import Endpoint
from dls.remote.tunnel.link import Connected, Link
from dls.remote.tunnel.listener import Listener
from dls.remote.tunnel.proxy import Proxy
from tests.support.processes import free_port


def ours(config: Path, socket: str, carrier: str) -> None:
    """Open our forward as `dls connect` does, but to any server, and wait until standard input closes."""
    login = LoginOptions(ssh_config=config, carrier=carrier)
    connection = log_in("dls-demo", login, NoPrompter(), Phases(Silent()))
    connection.run("true")  # As `dls connect` does: OpenSSH sends small packets without delay only after a command.
    state = ServerState(0, "", "", "", socket, None, "", "", "", "")
    link = Link(Endpoint(connection, state, ""))
    forward = Listener.open(connection.transport, Proxy(link).serve, free_port())
    link.handle(Connected(link.endpoint))
    print(forward.port, flush=True)
    sys.stdin.read()


def plain(config: Path, port: str) -> None:
    """Open a forward of sshtunnel with its default settings, and wait until standard input closes."""
    target = resolve_hops("dls-demo", LoginOptions(ssh_config=config))[-1]
    with sshtunnel.SSHTunnelForwarder(
        (target.host, target.port),
        ssh_config_file=None,
        ssh_username=target.user,
        ssh_pkey=paramiko.PKey.from_path(target.identities[0]),
        allow_agent=False,
        host_pkey_directories=[],
        local_bind_address=("127.0.0.1", 0),
        remote_bind_address=("127.0.0.1", int(port)),
    ) as forwarder:
        print(forwarder.local_bind_port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    {"ours": ours, "plain": plain}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
