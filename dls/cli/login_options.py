"""The options of the commands that log in to a host, and their conversion into values for `dls.remote`.

They are apart from those of `dls serve`: a host has no `dls.remote`.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dls.cli.options import Command, add_options, read_first_line
from dls.cli.text import printable
from dls.contract import DEFAULT_REMOTE_DIR
from dls.errors import TargetError
from dls.remote.ssh.options import CARRIERS, LoginOptions

if TYPE_CHECKING:
    from dls.remote.cluster.options import ClusterOptions
    from dls.remote.host.network import NetworkOptions

SAME_NAMES = (
    "ssh_options",
    "user",
    "jump",
    "address_family",
    "carrier",
    "via",
    "through_exec",
    "verbose",
    "save_password",
)
"""Login options that have one name on the command line and in `LoginOptions`."""


def _ssh_option(*short: str) -> Callable[[Command], Command]:
    return click.option(
        *short,
        "--ssh-option",
        "ssh_options",
        multiple=True,
        metavar="KEY=VALUE",
        help="Setting of ssh_config(5); wins over the configuration file.",
    )


_SHORT = _ssh_option("-o")
LOGIN_OPTIONS = [
    click.option(
        "-F",
        "--ssh-config",
        type=click.Path(path_type=Path),
        help="SSH configuration file to read instead of ~/.ssh/config.",
    ),
    click.option(
        "-i",
        "--identity",
        "identities",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Private key file to log in with; may be given several times.",
    ),
    click.option("-p", "--ssh-port", type=click.IntRange(1, 65535), help="Port of the host's SSH server."),
    click.option("-l", "--user", metavar="USER", help="User to log in as."),
    click.option("-J", "--jump", metavar="HOST,...", help="Jump hosts to go through, the nearest one first."),
    _SHORT,
    click.option("-4", "address_family", flag_value="inet", help="Use IPv4 only."),
    click.option("-6", "address_family", flag_value="inet6", help="Use IPv6 only."),
    click.option("-v", "--verbose", count=True, help="Tell what SSH does; -vv tells more."),
    click.option(
        "--carrier",
        type=click.Choice(CARRIERS),
        default="auto",
        show_default=True,
        help="What logs in: dls itself (paramiko), this computer's ssh, or the one that the host needs.",
    ),
    click.option(
        "--via",
        is_eager=True,
        metavar="COMMAND",
        help='Reach the host by a command that runs another one there, as "docker exec -i NAME", without SSH.',
    ),
    click.option(
        "--through-exec",
        is_flag=True,
        help="Use a host that forbids forwarding through a command's input and output.",
    ),
    click.option(
        "--accept-new-host-key",
        is_flag=True,
        help="Accept the key of a host that is not known yet; a changed key is still refused.",
    ),
    click.option(
        "--password-file",
        type=click.Path(allow_dash=True),
        help="File whose first line is the password; - for standard input.",
    ),
    click.option(
        "--save-password",
        is_flag=True,
        help="Keep the password that is typed in this computer's keychain; dls forget removes it.",
    ),
    click.option(
        "--remote-dir",
        default=DEFAULT_REMOTE_DIR,
        show_default=True,
        help="Directory on the host to install into.",
    ),
]
"""Options that say how to log in to a host; most are those of `ssh`."""


def login_options(command: Command) -> Command:
    """Add the options of every command that logs in to a host."""
    return add_options(command, LOGIN_OPTIONS)


def login_options_without_o(command: Command) -> Command:
    """Add the same options to a command whose -o is another one: --ssh-option has no short form there."""
    long = _ssh_option()
    return add_options(command, [long if option is _SHORT else option for option in LOGIN_OPTIONS])


def cluster_options(command: Command) -> Command:
    """Add the options of the job in which the server runs on a cluster."""
    options = [
        click.option(
            "--here", "mode", flag_value="here", help="On a cluster: run on the login node itself, not in a job."
        ),
        click.option("--slurm", "mode", flag_value="slurm", help="Run in a Slurm job even on a host with a GPU."),
        click.option("--time", metavar="DURATION", help="On a cluster: how long the job may run, as 4h or 1-12:00:00."),
        click.option("--renew", is_flag=True, help="Have the next job ready when the time of one is over."),
        click.option("--partition", metavar="NAME", help="Partition of the cluster."),
        click.option("--account", metavar="NAME", help="Account that the job is charged to."),
        click.option("--qos", metavar="NAME", help="Quality of service of the job."),
        click.option(
            "--gres",
            help="GPUs of the job, as gpu:a100:1; none for none. By default gpu:1 for an engine that uses one.",
        ),
        click.option("--cpus", type=click.IntRange(1), help="CPUs of the job."),
        click.option("--mem", metavar="SIZE", help="Memory of the job, as 16G."),
        click.option("--constraint", metavar="FEATURE", help="Feature that the job's node must have."),
        click.option(
            "--sbatch-option",
            "sbatch_options",
            multiple=True,
            metavar="NAME[=VALUE]",
            help="Another option of sbatch, as reservation=course; may be given several times.",
        ),
    ]
    return add_options(command, options)


def build_cluster_options(options: dict[str, Any]) -> ClusterOptions:
    """Return the values of the options that `cluster_options` adds."""
    from dls.remote.cluster.options import ClusterOptions

    names = ("time", "partition", "account", "qos", "gres", "cpus", "mem", "constraint", "sbatch_options", "renew")
    return ClusterOptions(mode=options["mode"] or "auto", **{name: options[name] for name in names})


def network_options(command: Command) -> Command:
    """Add the options of what a host gets that reaches no internet."""
    options = [
        click.option(
            "--lend-network/--no-lend-network",
            "lend",
            default=None,
            help="Let a host that reaches no internet use this computer's network until the installation is done; by "
            "default you are asked.",
        ),
        click.option(
            "--from",
            "parcel",
            metavar="FILE",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="Install from a file that `dls pack` made: neither the host nor this computer needs internet.",
        ),
    ]
    return add_options(command, options)


def build_network_options(options: dict[str, Any]) -> NetworkOptions:
    """Return the values of the options that `network_options` adds."""
    from dls.remote.host.network import NetworkOptions

    return NetworkOptions(options["lend"], options["parcel"])


class _Formatter(logging.Formatter):
    """Formats a message that may hold what a host said, so that it can't change the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(f"{record.name}: {record.getMessage()}")


def show_ssh_messages() -> None:
    """Write what paramiko tells of its work to standard error; it tells no secrets."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logger = logging.getLogger("paramiko")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)


def build_login_options(options: dict[str, Any]) -> LoginOptions:
    """Return the values of the options that `login_options` adds; reads the password file, and obeys --verbose."""
    if options["verbose"]:
        show_ssh_messages()
    return LoginOptions(
        ssh_config=options["ssh_config"],
        identities=tuple(options["identities"]),
        ssh_port=options["ssh_port"],
        accept_new_host_key=options["accept_new_host_key"],
        password=read_first_line(options["password_file"], "--password-file"),
        remote_dir=options["remote_dir"],
        **{name: options[name] for name in SAME_NAMES},
    )


def start_reading_configuration(target: str, login: LoginOptions) -> None:
    """Let `ssh` read the configuration while the modules of the client are loaded; errors are met when it is needed."""
    from dls.remote.ssh.openssh_config import start_early
    from dls.remote.ssh.target import parse_destination

    with contextlib.suppress(TargetError, OSError):
        parsed = parse_destination(target)
        if not login.via:
            start_early(login.ssh_arguments(parsed.user, parsed.port), parsed.host)
