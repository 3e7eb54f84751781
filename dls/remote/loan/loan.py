"""A loan: for as long as it is open, the host has a port that leads through this computer to a few names."""

from __future__ import annotations

import contextlib
import threading
import urllib.parse
from collections.abc import Iterator

from dls.contract import DEFAULT_REMOTE_DIR
from dls.credentials import USER, encode_token, make_secret
from dls.errors import DlsError, ForwardError
from dls.remote.carriers.through_exec import open_through_exec
from dls.remote.host.scripts import render
from dls.remote.loan.gateway import Gateway
from dls.remote.loan.laptop import BUNDLES
from dls.remote.loan.terms import Terms, environment_of
from dls.remote.loan.traffic import Traffic
from dls.remote.progress import SHOW_SECONDS, Phase, TransferMeter
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.reverse_forward import ReverseForward


class Loan:
    """An open loan."""

    def __init__(self, terms: Terms, gateway: Gateway, port: int, secret: str) -> None:
        self.terms = terms
        self._gateway = gateway
        self._secret = secret
        self.port = port
        """The port on the host's loopback address."""

    def __repr__(self) -> str:
        return f"<Loan of {self.terms.describe()}>"

    @property
    def proxy_url(self) -> str:
        """The address of the proxy on the host, with the secret: for standard input and environments only."""
        return f"http://{USER}:{self._secret}@127.0.0.1:{self.port}"

    @property
    def ca_bundle(self) -> str:
        """The certificates that this computer is configured with (PEM), which the host's programs trust too."""
        return self.terms.laptop.ca_bundle

    @property
    def traffic(self) -> Traffic:
        """What has moved."""
        return self._gateway.traffic

    def variables(self, ca_file: str = "") -> dict[str, str | None]:
        """Return the variables for programs on the host; None for one to unset; `ca_file` is the bundle's place."""
        return environment_of(self.terms, self.proxy_url, ca_file)

    def wrap(self, script: str) -> str:
        """Return the script as it runs with the loan: with its variables, and the certificates in a private folder.

        The text holds secrets, so that it goes to the host over standard input only, as every script does.
        """
        plain = self.variables()
        return "\n".join(
            [
                render(
                    "use_loan",
                    arguments=BUNDLES,
                    LOAN_SET="\n".join(f"{name}={value}" for name, value in plain.items() if value is not None),
                    LOAN_UNSET=" ".join(name for name, value in plain.items() if value is None),
                    LOAN_CERTIFICATES=self.ca_bundle,
                ),
                f"(\n{script}\n)",
                "exit $?",
            ]
        )

    def redact(self, text: str) -> str:
        """Return a text of the host's programs without the secret and without the credentials of indexes."""
        for secret in (self._secret, encode_token(self._secret), *_passwords(self.terms)):
            text = text.replace(secret, "…")
        return text

    @contextlib.contextmanager
    def shown(self, phase: Phase, what: str, total: int | None = None) -> Iterator[None]:
        """Show in the phase, until the block ends, how many bytes have come over the loan since its beginning.

        As long as none has, what the host's programs say stays: that they wait for another installation, say.
        """
        ended = threading.Event()
        before = self.traffic.received

        def watch() -> None:
            meter: TransferMeter | None = None
            while not ended.wait(SHOW_SECONDS):
                if not (done := self.traffic.received - before):
                    continue
                if meter is None:
                    meter = TransferMeter(phase, what, total, done)
                else:
                    meter.done = done
                    meter.show()

        watcher = threading.Thread(target=watch, name="dls-loan-shown", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def explain(self) -> str:
        """Return a sentence about what the host wanted and did not get; empty where it got everything."""
        if unreachable := list(self.traffic.unreachable_names.values()):
            return f"This computer does not reach it either: {unreachable[0]}"
        if refused := list(self.traffic.refused_names):
            return f"The host asked for {', '.join(refused[:3])}, which is not lent."
        return ""


def _passwords(terms: Terms) -> list[str]:
    """Return the passwords of this computer's addresses, in the forms in which they may be printed.

    A user without a password is a token, and as secret.
    """
    known, found = terms.laptop, list[str]()
    for url in (*known.indexes.all, known.hub, known.python_mirror):
        parts = urllib.parse.urlsplit(url)
        if secret := parts.password or parts.username:
            found += [secret, urllib.parse.unquote(secret)]
    return list(dict.fromkeys(found))


@contextlib.contextmanager
def lend(connection: Connection, terms: Terms, *, phase: Phase, remote_dir: str = DEFAULT_REMOTE_DIR) -> Iterator[Loan]:
    """Lend this computer's network to the host until the block ends.

    Where the host lets no port lead back, the loan comes through an SSH server that its user runs there, in a command
    of the same login. At the end the port is closed there, every connection of the loan ends, and its secret is worth
    nothing. Raises ForwardError where the host lets nothing lead back.
    """
    secret = make_secret()
    gateway = Gateway(terms.names, terms.way_out, secret)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(gateway.close)
        forward = ReverseForward.open(connection, gateway.accept)
        if forward is None:
            inner = _open_inside(connection, remote_dir, phase)
            # Not the whole connection: it would close the outer one too.
            cleanup.callback(inner.transport.close)
            forward = ReverseForward.open(inner, gateway.accept)
        if forward is None:
            raise _no_way_back(connection)
        cleanup.callback(forward.close)
        yield Loan(terms, gateway, forward.port, secret)


def _open_inside(connection: Connection, remote_dir: str, phase: Phase) -> Connection:
    phase.update("the host lets no port lead back: going through an SSH server inside a command")
    try:
        return open_through_exec(connection, remote_dir, phase, installs=False)
    except DlsError as error:
        if not connection.is_active():
            raise
        raise _no_way_back(connection) from error


def _no_way_back(connection: Connection) -> ForwardError:
    return ForwardError(
        f"{connection.target.label} lets no port lead back to this computer, and has no sshd that its user can run: "
        "nothing can be lent to it.",
        "Send what it needs as a file: dls pack, then dls connect --from FILE.",
    )
