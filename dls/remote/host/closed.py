"""What a user is told of a host that reaches no internet, and asked: pure texts."""

from __future__ import annotations

from collections.abc import Sequence

from dls.contract import DEFAULT_ENGINE
from dls.errors import ClosedHostError
from dls.remote.host import lock_files
from dls.remote.host.install import InstallPlan
from dls.remote.host.options import ServerOptions
from dls.remote.host.probe import HostReport
from dls.remote.host.reach import Reach
from dls.remote.ssh.options import LoginOptions, join_words
from dls.remote.ssh.prompts import Question, QuestionKind

CUDA_BY_DRIVER = (
    (580, "13.0"),
    (570, "12.8"),
    (560, "12.6"),
    (550, "12.4"),
    (535, "12.2"),
    (525, "12.0"),
)
"""Major version of NVIDIA's driver, and the newest CUDA that it runs (CUDA's release notes, table 3)."""


def connect_command(login: LoginOptions, target: str, options: ServerOptions, *more: str) -> str:
    """Return the command line that connects to the same host with further options."""
    words = ["--engine", options.engine] if options.engine != DEFAULT_ENGINE else []
    # The host may stand behind `--via` alone.
    return f"{login.command('connect', target)} {join_words([*words, *more])}".strip()


def pack_command(report: HostReport, plan: InstallPlan, options: ServerOptions) -> str:
    """Return the command line that packs what this host needs."""
    words = ["dls", "pack", "--engine", options.engine, "--platform", report.platform]
    if plan.base is None:
        words += ["--python", lock_files.DEFAULT_PYTHON, "--with-python"]
    else:
        words += ["--python", ".".join(map(str, plan.base.version[:2]))]
    words += _build(report, plan)
    return join_words([*words, "-o", parcel_name(options)])


def _build(report: HostReport, plan: InstallPlan) -> list[str]:
    """Return the option that chooses the build of torch; none where the engine has no torch."""
    drivers = [gpu.driver_version for gpu in report.gpus if gpu.driver_version]
    if not plan.torch_backend:
        return []
    if not drivers:
        return ["--cpu"]
    return next((["--cuda", cuda] for oldest, cuda in CUDA_BY_DRIVER if min(drivers) >= oldest), [])


def parcel_name(options: ServerOptions) -> str:
    """Return a name for the file of a parcel."""
    return f"{options.engine}.parcel"


def closed_error(
    where: str,
    login: LoginOptions,
    target: str,
    report: HostReport,
    plan: InstallPlan,
    options: ServerOptions,
    reach: Reach,
) -> ClosedHostError:
    """Return the error of a host that does not reach what it needs: what that is, and both ways out as commands.

    `where` is the host, `target` what the user named: on a cluster the login node, from which a job was entered.
    """
    lend = connect_command(login, target, options, "--lend-network")
    send = connect_command(login, target, options, "--from", parcel_name(options))
    pack = (
        "\nOr pack what it needs, on any computer with internet, and send that: "
        f"{pack_command(report, plan, options)}\nand then: {send}"
    )
    return ClosedHostError(
        f"{where} does not reach {reach.missing}, and so can't install what is missing there.",
        f"Lend it this computer's network for the installation: {lend}{pack if report.system == 'Linux' else ''}",
    )


def consent_question(where: str, reach: Reach, names: Sequence[str], logins: Sequence[str] = ()) -> Question:
    """Return the question whether a host may use this computer's network; `logins` are names whose passwords go along.

    The host's installer needs those, so that whoever has the host's root account could read them.
    """
    told = f" It is told this computer's password for {', '.join(logins)}." if logins else ""
    count = f"{len(names)} names" if len(names) != 1 else "one name"
    return Question(
        QuestionKind.CONSENT,
        where,
        f"{where} does not reach {reach.missing}. If you lend it this computer's network, it will reach, through this "
        f"computer and only until the installation is done, {count}: {', '.join(names)}.{told}\n"
        "Lend it the network? (yes/no) ",
        echo=True,
    )
