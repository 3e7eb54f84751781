"""Install the environment and our code on the host: `plan` decides what is missing, `install` does it."""

from __future__ import annotations

import base64
import json
import time
from collections import deque
from dataclasses import dataclass, replace
from enum import Enum

from dls.contract import RECORD_MINUTES
from dls.errors import HostError, InstallError
from dls.remote.host import lock_files, send_uv
from dls.remote.host.failures import installer_failed
from dls.remote.host.install_output import InstallOutput
from dls.remote.host.packages import ENVIRONMENT_FORMAT, Code, Requirements
from dls.remote.host.probe import HostReport, Python
from dls.remote.host.provision import OWN_INTERNET, Provision
from dls.remote.host.refusals import HASH_MISMATCH, raise_refusal
from dls.remote.host.scripts import read_verifier, render
from dls.remote.host.storage import check_storage
from dls.remote.host.torch_builds import constrain_torch, torch_backend
from dls.remote.progress import Phase, format_size
from dls.remote.ssh.shell import Completed, ScriptRunner

PREFERRED = ((3, 12), (3, 13), (3, 11), (3, 10), (3, 14))
"""Python versions on which the server runs; those for which most packages have wheels come first."""
OLDEST_FOR_UV = (3, 8, 0)
"""Oldest Python whose pip finds the wheel of uv; on an older one, and on a host without any, uv is sent there."""
LAST_LINES = 15
"""Number of the installer's last lines that an error shows."""
SILENCE_SECONDS = 1800
"""Seconds without a word of the installer, and without a byte that moves, after which the installation has failed."""
INSTALLER_FAILED = 74
"""Exit status of the installer when the packages can't be installed."""
NO_WHEEL = "No matching distribution found for uv"
"""What a pip says that is too old to know the wheels of uv."""
RESULTS = {
    "locked": "Installed the locked packages and our code",
    "ranges": "Installed the packages (the newest that fit) and our code",
    "there": "Installed our code; another dls made the environment meanwhile",
}
"""What the installer's last line means to the user."""
FROM_PARCEL = "Installed the packages of the parcel and our code"
NO_LOCK_FITS = "Installed the packages (the newest that fit: no lock fits this host) and our code"


class Tool(Enum):
    """Program that makes the environment."""

    UV = "uv"
    FETCH_UV = "uv, fetched first"
    SEND_UV = "uv, sent from here"
    PIP = "venv and pip"


@dataclass(frozen=True)
class InstallPlan:
    """Steps that are missing on the host, and the places of everything there."""

    environment: str
    """Directory of the packages."""
    code: str
    """Directory of our own code."""
    make_environment: bool
    send_code: bool
    requirements: Requirements
    run_dir: str
    remote_key: str
    root: str
    tool: Tool = Tool.UV
    python: Python | None = None
    """Interpreter from which the environment is made; None lets uv fetch one."""
    uv: str = ""
    """Path of uv on the host; empty where there is none."""
    uv_tags: tuple[str, ...] = ()
    """Tags of the wheels of uv that fit the host, should it have to be sent there."""
    packages: tuple[str, ...] = ()
    torch_backend: str = ""
    """Build of torch that uv installs: `auto` for the host's driver, or `cpu`; empty where no torch is needed."""
    lock: str = ""
    """Text of the lock file that fits the host; empty where none does."""
    parcel: str = ""
    """Folder on the host with the packages of a parcel, all that `lock` names; empty where the host fetches them."""
    download_bytes: int | None = None
    """Bytes that the installer fetches for the lock file, before what its caches hold; None where nobody can say."""
    replace_code: bool = False
    """Whether the directory of our code holds files that have changed."""

    @property
    def interpreter(self) -> str:
        """Path of the environment's Python."""
        return f"{self.environment}/bin/python"

    @property
    def base(self) -> Python | None:
        """The host's Python that the environment is made from; None where uv has to bring one."""
        return _base(self.python)

    @property
    def nothing_to_do(self) -> bool:
        """Whether the host has everything already."""
        return not (self.make_environment or self.send_code)


def plan(report: HostReport, needed: Requirements, code_key: str, *, tool: Tool | None = None) -> InstallPlan:
    """Decide what is missing on the host; raises HostError when it can't be set up.

    A report that is not full (no Pythons looked for) is enough where the environment exists.
    """
    exists = has_environment(report, needed)
    chosen, python = (Tool.UV, None) if exists else _choose(report, needed, tool)
    lock = "" if exists else _choose_lock(report, needed, python)
    return InstallPlan(
        environment=f"{report.root}/env/{_name(report, needed)}",
        code=f"{report.root}/code/{code_key}",
        make_environment=not exists,
        send_code=code_key not in report.codes,
        requirements=needed,
        run_dir=report.run_dir,
        remote_key=report.remote_key,
        root=report.root,
        tool=chosen,
        python=python,
        uv=report.uv,
        uv_tags=send_uv.platform_tags(report),
        packages=needed.packages if exists else constrain_torch(needed.packages, report),
        torch_backend=torch_backend(report, needed),
        lock=lock,
        download_bytes=_find_size(report, needed, chosen, python) if lock else None,
    )


def _choose_lock(report: HostReport, needed: Requirements, python: Python | None) -> str:
    """Return the text of the lock file to install from; empty where none fits.

    uv fetches a newer Python where the host's is too old, and that one fits.
    """
    fits = lock_files.fits(report, _base(python), needs_torch=bool(torch_backend(report, needed)))
    return lock_files.read(needed.lock) if needed.lock and fits else ""


def _find_size(report: HostReport, needed: Requirements, tool: Tool, python: Python | None) -> int | None:
    size = lock_files.find_size(needed.lock, report, _base(python))
    fetched = lock_files.find_size("uv", report, _base(python)) if tool is Tool.FETCH_UV else 0
    return None if size is None else size + (fetched or 0)


def _base(python: Python | None) -> Python | None:
    """Return the Python that the environment is made from; None where uv has to fetch one."""
    return python if python and python.version[:2] in PREFERRED else None


def _name(report: HostReport, needed: Requirements) -> str:
    # A home may serve hosts with and without a GPU, which need different builds of torch.
    backend = torch_backend(report, needed)
    return "-".join(part for part in (needed.key, report.platform, {"auto": "cuda"}.get(backend, backend)) if part)


def has_environment(report: HostReport, needed: Requirements) -> bool:
    """Return whether the host has the environment already."""
    return _name(report, needed) in report.environments


def plan_reinstallation(report: HostReport, needed: Requirements, code_key: str) -> InstallPlan:
    """Return the plan that installs everything again, whatever the host has."""
    return plan(replace(report, environments=frozenset(), codes=frozenset()), needed, code_key)


def _choose(report: HostReport, needed: Requirements, tool: Tool | None) -> tuple[Tool, Python | None]:
    if report.system not in ("Linux", "Darwin"):
        raise HostError(
            f"{report.hostname} runs {report.system}, where dls can't start its server.",
            "Hosts with Linux or macOS work; on Windows, start `dls serve` by hand and forward its port.",
        )
    check_storage(report, needed)
    usable = [python for python in report.pythons if python.version[:2] in PREFERRED]
    usable.sort(key=lambda python: PREFERRED.index(python.version[:2]))
    able = [python for python in usable if python.has_venv]
    if tool is Tool.PIP and able:
        return Tool.PIP, able[0]
    if report.uv:
        return Tool.UV, usable[0] if usable else None
    if able:
        return Tool.FETCH_UV, able[0]
    with_pip = [python for python in (*usable, *report.pythons) if python.has_pip and python.version >= OLDEST_FOR_UV]
    if with_pip:
        return Tool.FETCH_UV, with_pip[0]
    if send_uv.platform_tags(report):
        return Tool.SEND_UV, None
    raise HostError(_no_python(report), "Install one (on Debian and Ubuntu: apt install python3-venv), or uv.")


def _no_python(report: HostReport) -> str:
    if not report.pythons:
        return f"{report.hostname} has no Python."
    found = ", ".join(f"{'.'.join(map(str, python.version))} at {python.path}" for python in report.pythons)
    return f"{report.hostname} has no Python from 3.10 to 3.14 that can make an environment (found: {found})."


def environment_script(plan: InstallPlan, *, own_caches: bool) -> str:
    """Return the script that makes the environment under a lock, in a temporary place, and moves it when complete."""
    # A Python too old for the server can still fetch uv, which then brings a newer one.
    host_python = plan.python.path if plan.python else ""
    return render(
        "make_environment",
        "lock",
        "private",
        "trusted",
        "sharing",
        arguments=plan.packages or plan.requirements.packages,
        ROOT=plan.root,
        RECORD_MINUTES=RECORD_MINUTES,
        ENVIRONMENT=plan.environment,
        RUN=plan.run_dir,
        OWN_CACHES="1" if own_caches else "",
        TOOL=plan.tool.name,
        UV=plan.uv,
        HOST_PYTHON=host_python,
        BASE_PYTHON=plan.base.path if plan.base else lock_files.DEFAULT_PYTHON,
        PIP_WORKS="1" if plan.base and plan.base.has_venv else "",
        TORCH_BACKEND=plan.torch_backend,
        PACKAGES_LOCK=plan.lock,
        PARCEL=plan.parcel,
        UV_LOCK=lock_files.read("uv") if plan.tool is Tool.FETCH_UV else "",
        COMPLETE=json.dumps(
            {
                "format": ENVIRONMENT_FORMAT,
                "packages": plan.requirements.packages,
                "lock": lock_files.digest(plan.lock) if plan.lock else None,
            }
        ),
        VERIFIER=read_verifier(),
    )


def code_script(plan: InstallPlan, archive: bytes) -> str:
    """Return the script that unpacks our code beside its place and moves it there when it is complete.

    The archive is part of the script, since a transfer of its own, by SFTP, would cost several round trips.
    """
    return render(
        "send_code",
        "trusted",
        ROOT=plan.root,
        ENVIRONMENT=plan.environment,
        CODE=plan.code,
        REPLACES="1" if plan.replace_code else "",
        PYTHON=plan.interpreter,
        ARCHIVE=base64.encodebytes(archive).decode().strip(),
    )


def install(
    connection: ScriptRunner,
    plan: InstallPlan,
    code: Code,
    phase: Phase,
    *,
    own_caches: bool,
    provision: Provision = OWN_INTERNET,
) -> str:
    """Run the missing steps of the plan, show each line of the installer as it comes, and return what was installed.

    `provision` is what the installer gets on a host that reaches no internet. Raises HostError for a directory that
    another user made or can change, and InstallError.
    """
    result = "Sent our code"
    if plan.make_environment:
        result = _make_environment(connection, plan, phase, own_caches, provision)
    if plan.send_code:
        phase.update("sending our code")
        _send_code(connection, plan, code)
    return result


def mark_incomplete(connection: ScriptRunner, plan: InstallPlan) -> None:
    """Mark a damaged installation as incomplete; raises HostError for a directory that another user can change."""
    script = render("mark_incomplete", "trusted", ROOT=plan.root, ENVIRONMENT=plan.environment, CODE=plan.code)
    raise_refusal(connection.target.label, connection.run(script), plan.run_dir)


def _send_uv(connection: ScriptRunner, plan: InstallPlan, phase: Phase) -> InstallPlan:
    """Send uv to the host, and return the plan that uses it there."""
    path = send_uv.send_uv(connection, plan.root, plan.run_dir, plan.uv_tags, phase)
    return replace(plan, tool=Tool.UV, uv=path)


def _make_environment(
    connection: ScriptRunner, plan: InstallPlan, phase: Phase, own_caches: bool, provision: Provision
) -> str:
    lines: deque[str] = deque(maxlen=LAST_LINES)
    output = InstallOutput(time.monotonic())

    def show(line: str) -> None:
        line = provision.redact(line)
        lines.append(line)
        phase.update(line.strip())
        # What is lent or sent is counted where it passes.
        if provision is OWN_INTERNET and (transfer := output.read(line, time.monotonic())):
            phase.transfer(transfer)

    def run() -> Completed:
        script = provision.wrap(environment_script(plan, own_caches=own_caches))
        return connection.run(script, on_line=show, timeout=SILENCE_SECONDS, last_moved=provision.last_moved)

    if plan.tool is Tool.SEND_UV:
        plan = _send_uv(connection, plan, phase)
    size = f", about {format_size(plan.download_bytes)}" if plan.download_bytes else ""
    phase.update(f"making an environment with {plan.tool.value}{size}")
    completed = run()
    if completed.status == INSTALLER_FAILED and plan.uv_tags and any(NO_WHEEL in line for line in lines):
        plan = _send_uv(connection, plan, phase)
        completed = run()
    raise_refusal(connection.target.label, completed, plan.run_dir)
    if completed.status == HASH_MISMATCH:
        raise InstallError(
            f"A package that came to {connection.target.label} is not the one that was locked: its hash differs.",
            "Does a mirror or a proxy there replace packages? Ask who runs it, and run the command again.",
            detail="\n".join(lines),
        )
    if completed.status:
        has_internet = provision is OWN_INTERNET and not plan.parcel
        detail = "\n".join(lines) or provision.redact(completed.stderr)
        raise installer_failed(connection.target.label, detail, provision.explain(), has_internet=has_internet)
    installed = lines[-1] if lines else ""
    if plan.parcel and installed == "locked":
        return FROM_PARCEL
    return NO_LOCK_FITS if installed == "ranges" and not plan.lock else RESULTS.get(installed, RESULTS["ranges"])


def _send_code(connection: ScriptRunner, plan: InstallPlan, code: Code) -> None:
    completed = connection.run(code_script(plan, code.archive()))
    raise_refusal(connection.target.label, completed, plan.run_dir)
    if completed.status:
        raise InstallError(
            f"Our code could not be put on {connection.target.label}.",
            "Is the disk full or read-only? Another directory can be named with --remote-dir.",
            detail=completed.stderr or completed.stdout,
        )
