"""Opens the tunnel to a server: finds or starts the server, and opens the local port that leads to it."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from dls.contract import DEFAULT_PORT
from dls.remote.host.deploy import Deployment
from dls.remote.host.options import ServerOptions
from dls.remote.progress import Phases, Reporter, Silent
from dls.remote.ssh.connection import Connection
from dls.remote.tunnel.endpoint import Endpoint
from dls.remote.tunnel.link import Closed, Connected, Link
from dls.remote.tunnel.listener import Listener
from dls.remote.tunnel.page import Page, PageFacts
from dls.remote.tunnel.proxy import Proxy


def open_tunnel(
    deployment: Deployment,
    secret: str | None,
    local_port: int | None,
    shown: ServerOptions | None,
    phases: Phases,
    cleanup: contextlib.ExitStack,
) -> tuple[Link, Listener, Page | None]:
    """Find or start the server, open the local port, and return when the engine behind it is ready.

    With `shown`, the port serves a page too. `cleanup` closes the port and ends the link.
    """
    state = deployment.find_or_start()
    link = Link(Endpoint(deployment.connection, state, deployment.protocol))
    proxy = _make_proxy(link, secret, phases.reporter, shown)
    listener = _open_port(deployment.connection, proxy, local_port, phases)
    cleanup.callback(listener.close)
    cleanup.callback(link.handle, Closed())
    link.handle(Connected(replace(link.endpoint, state=deployment.wait_for_engine(state))))
    return link, listener, proxy.page


def _make_proxy(link: Link, secret: str | None, reporter: Reporter, shown: ServerOptions | None) -> Proxy:
    """Return the proxy behind the local port, with a page for people about the server that has the options `shown`."""
    show_upload = getattr(reporter, "upload", Silent().upload)  # reporters of earlier programs have none
    page = None
    if shown is not None:
        page = Page(link, PageFacts(str(link.endpoint.connection.target), shown.serves_viewers), secret)
    return Proxy(link, secret=secret, show=reporter.note, show_upload=show_upload, page=page)


def _open_port(connection: Connection, proxy: Proxy, local_port: int | None, phases: Phases) -> Listener:
    with phases("forward", "Opening the local port") as phase:
        listener = Listener.open(connection.transport, proxy.serve, local_port)
        phase.result = f"Forwarding localhost:{listener.port}"
    if local_port is None and listener.port != DEFAULT_PORT:
        phases.reporter.note(f"Port {DEFAULT_PORT} is taken on this computer: using {listener.port}.")
    return listener
