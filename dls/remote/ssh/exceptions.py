"""The one place where exceptions of paramiko and of sockets become errors of ours.

`translate_errors` catches; a converter, a pure function, says which error of ours the exception becomes:
`connection_error` for a connection, `channel_error` for a channel, `sftp_error` for a file transfer.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import paramiko
from paramiko import ssh_exception

from dls.errors import ConnectError, DlsError, ForwardError, HostError, HostKeyError, LinkError, LoginError, TargetError
from dls.remote.ssh.target import Target
from dls.remote.ssh.transport import NoGreeting, NothingInCommon

SSH_EXCEPTIONS = (OSError, EOFError, paramiko.SSHException, paramiko.SFTPError)
"""Base classes of everything that paramiko and the socket module raise; `TimeoutError` is an `OSError`."""
PROHIBITED_CODES = (1, 3)
"""Reason codes of RFC 4254, section 5.1: administratively prohibited, and unknown channel type (a server that lacks
the extension)."""


PURPOSES = {
    "kex algorithm": ("key exchange", "kex_algo_list"),
    "host key": ("kind of host key", "server_key_algo_list"),
    "ciphers": ("cipher", "server_encrypt_algo_list"),
    "macs": ("MAC", "server_mac_algo_list"),
    "compression": ("compression", "server_compress_algo_list"),
}
"""What an algorithm is for, by paramiko's words: in words of ours, and paramiko's name for the host's list."""
REFUSING_WORDS = ("not allowed at this time", "exceeded maxstartups")
"""What OpenSSH's server says in place of a greeting when it takes no more connections."""


class Prohibited(ForwardError):
    """The host's SSH server forbids this kind of forwarding."""


def forwarding_forbidden(label: str) -> Prohibited:
    """Return the error for a host that forwards neither ports nor Unix sockets, with the way around it."""
    return Prohibited(
        f"{label} forbids every kind of forwarding.",
        "Ask whoever runs it for AllowTcpForwarding. If you may do without, --through-exec sends everything "
        "through a command's input and output.",
    )


class NoCommonAlgorithm(ConnectError):
    """The host's SSH server and paramiko have no algorithm in common; OpenSSH's `ssh` may have one."""


class NeedsOpenSsh(LoginError):
    """The host accepts none of what we can do, and OpenSSH's `ssh` can do more."""

    def __init__(self, target: Target, reason: str) -> None:
        super().__init__(
            f"{target} wants {reason}, which only OpenSSH's ssh can do.", "Install OpenSSH's ssh on this computer."
        )
        self.reason = reason
        """What `ssh` is needed for, as a phrase: "Kerberos (GSSAPI)", "the security key id_ed25519_sk"."""


class ChannelError(LinkError):
    """The channel was closed, by the host or together with its connection, or it took too long."""


@contextlib.contextmanager
def translate_errors(convert: Callable[[Exception], DlsError]) -> Iterator[None]:
    """Raise what `convert` makes of an exception of paramiko or of a socket; other exceptions pass unchanged."""
    try:
        yield
    except SSH_EXCEPTIONS as error:
        raise convert(error) from error


def connection_error(target: Target, error: Exception) -> DlsError:
    """Return our error for an exception at the connection to the target, by the most specific class in CONVERTERS."""
    convert = next(CONVERTERS[kind] for kind in type(error).__mro__ if kind in CONVERTERS)
    return convert(target, error)


def session_error(target: Target, is_active: Callable[[], bool], error: Exception, *, is_first: bool) -> DlsError:
    """Return our error for an exception while a script runs; `is_first` says that none has run on this connection."""
    if isinstance(error, paramiko.ChannelException):
        return HostError(
            f"{target.label} accepts the login, but runs no commands: its SSH server refuses sessions.",
            "Ask whoever runs the host whether this account may run commands (MaxSessions, restricted accounts).",
        )
    if is_first and not is_active():
        return LinkError(
            f"{target.label} accepted the login and closed the connection at once.",
            "The host may be out of memory or processes, or limit this account; its log says why (sshd).",
        )
    if not is_active():
        return LinkError(f"The connection to {target.label} was lost.", "Run the command again.")
    return connection_error(target, error)


def channel_error(error: Exception) -> ChannelError:
    """Return our error for an exception at a channel that was open."""
    return ChannelError(f"The channel to the host was closed ({type(error).__name__}).")


def sftp_error(target: Target, path: str, is_active: Callable[[], bool], error: Exception) -> DlsError:
    """Return our error for an exception while a file is written over SFTP; `is_active` tells if the connection is."""
    # First: a closed channel is an OSError too. The socket may know of the end before the transport does.
    if not is_active() or isinstance(error, EOFError):
        return LinkError(f"The connection to {target.label} was lost.", "Run it again: it goes on from there.")
    if isinstance(error, OSError):
        return HostError(
            f"{path} can't be written on {target.label}: {describe(error)}", "Is the disk full or read-only?"
        )
    return HostError(f"{target.label} takes no files over SFTP.", "Copy the file there by another way.")


def configuration_error(subject: str, error: Exception) -> TargetError:
    """Return our error for an SSH configuration that paramiko can't understand; `subject` is the file or the host."""
    return TargetError(
        f"The SSH configuration {subject} can't be understood: {error}.",
        "Correct that line, or name another one with -F.",
    )


def describe(error: BaseException) -> str:
    """Return the text of an exception as one sentence."""
    text = getattr(error, "strerror", None) or str(error) or "no reason is known"
    return text.rstrip(".") + "."


def _unknown_name(target: Target, error: Exception) -> ConnectError:
    return ConnectError(f"No host is known as {target.host!r}.", "Check the name, or your network.")


def _unreachable(target: Target, error: Exception) -> ConnectError:
    return ConnectError(
        f"{target.label} can't be reached on port {target.port}: {describe(error)}",
        "Check that it is on, that name and port are right, and whether you need a VPN or a jump host.",
    )


def _no_common_algorithm(target: Target, error: Exception) -> ConnectError:
    if "Incompatible version" in str(error):
        return ConnectError(
            f"{target.label} speaks only an SSH that is older than 2.0.", "Its SSH server has to be updated."
        )
    hint = "This computer's ssh may know one: --carrier openssh. An old server has to be updated."
    purpose = next((PURPOSES[words] for words in PURPOSES if words in str(error)), None)
    if purpose is None or not isinstance(error, NothingInCommon):
        return NoCommonAlgorithm(f"{target.label} speaks no SSH that dls can: {describe(error)}", hint)
    what, name = purpose
    offered = [each for each in error.offer.get(name, []) if not each.startswith(("ext-info-", "kex-strict-"))]
    return NoCommonAlgorithm(
        f"{target.label} and dls have no {what} in common: the host has only {', '.join(offered) or 'none'}.", hint
    )


def _login_refused(target: Target, error: Exception) -> LoginError:
    return LoginError(f"{target} refused the login: {describe(error)}", "Check the user name and the key.")


def _wrong_host_key(target: Target, error: Exception) -> HostKeyError:
    return HostKeyError(
        f"The host key of {target.known_hosts_name} is not the expected one: {describe(error)}",
        "Somebody may be listening in. Ask whoever runs the host.",
    )


def _channel_refused(target: Target, error: Exception) -> ForwardError:
    if getattr(error, "code", None) in PROHIBITED_CODES:
        return Prohibited(
            f"{target.label} forbids forwarding.",
            "Ask for AllowTcpForwarding or AllowStreamLocalForwarding in its sshd_config.",
        )
    return ForwardError(
        f"{target.label} could not open a channel: {describe(error)}", "Is the server still running there?"
    )


def _bad_configuration(target: Target, error: Exception) -> TargetError:
    return configuration_error(f"of {target.label}", error)


def _no_greeting(target: Target, error: Exception) -> ConnectError:
    lines = error.lines if isinstance(error, NoGreeting) else []
    where = f"{target.host} port {target.port}"
    if lines and lines[-1].startswith("SSH-"):
        return ConnectError(
            f"The SSH server at {where} closed the connection right after its greeting.",
            "It may take no logins now, or none from this address: wait some minutes, or ask whoever runs the host.",
        )
    if lines and not any(word in lines[-1].lower() for word in REFUSING_WORDS):
        return _no_ssh_server(target)
    if isinstance(error, NoGreeting) and error.is_late:
        return ConnectError(
            f"{where} accepts connections, but no SSH greeting came in time.",
            "Its SSH server may be overloaded, or another program answers there: check the port, -p.",
        )
    said = f" ({lines[-1].strip()})" if lines else ""
    return ConnectError(
        f"{where} closed the connection before its SSH greeting{said}.",
        "It may take no logins now, or none from here after failed ones: wait some minutes, and check the port, -p.",
    )


def _no_ssh_server(target: Target) -> ConnectError:
    return ConnectError(
        f"What answers at {target.host} port {target.port} is no SSH server.", "Check the port: --ssh-port."
    )


def _connection_lost(target: Target, error: Exception) -> DlsError:
    if any(word in str(error).lower() for word in ("banner", "protocol version")):
        return _no_ssh_server(target)
    return LinkError(f"The connection to {target.label} was lost: {describe(error)}", "Run the command again.")


CONVERTERS: dict[type[Exception], Callable[[Target, Exception], DlsError]] = {
    socket.gaierror: _unknown_name,
    OSError: _unreachable,
    EOFError: _connection_lost,
    paramiko.SFTPError: _connection_lost,
    ssh_exception.SSHException: _connection_lost,
    ssh_exception.AuthenticationException: _login_refused,
    ssh_exception.PasswordRequiredException: _login_refused,
    ssh_exception.BadAuthenticationType: _login_refused,
    ssh_exception.PartialAuthentication: _login_refused,
    ssh_exception.UnableToAuthenticate: _login_refused,
    ssh_exception.ChannelException: _channel_refused,
    ssh_exception.BadHostKeyException: _wrong_host_key,
    ssh_exception.IncompatiblePeer: _no_common_algorithm,
    NoGreeting: _no_greeting,
    ssh_exception.ProxyCommandFailure: _connection_lost,
    ssh_exception.NoValidConnectionsError: _unreachable,
    ssh_exception.CouldNotCanonicalize: _bad_configuration,
    ssh_exception.ConfigParseError: _bad_configuration,
    ssh_exception.MessageOrderError: _connection_lost,
}
"""Every exception class of paramiko (a test enumerates them), and the function that makes our error of it."""
