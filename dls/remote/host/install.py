"""Set up the host: plan (pure), then do."""

from __future__ import annotations

import base64
import json
import shlex
from collections import deque
from dataclasses import dataclass, replace
from enum import Enum

from dls.errors import HostError, InstallError
from dls.remote.host.packages import ENVIRONMENT_FORMAT, Code, Requirements
from dls.remote.host.probe import HostReport, Python
from dls.remote.host.scripts import LOCK, private_directory
from dls.remote.progress import Phase
from dls.remote.ssh.connection import Connection

PREFERRED = ((3, 12), (3, 13), (3, 11), (3, 10), (3, 14))
"""Which Python to take where there are several: those for which most packages have wheels come first."""
MANAGED_PYTHON = "3.12"
"""What uv is asked to fetch where the host has no Python that is new enough."""
LAST_LINES = 15
TORCH_BY_DRIVER = ((580, ""), (525, ",<2.11"))
"""Oldest driver (major version), and what that means for torch: its wheels from 2.11 on are built for CUDA 13."""


class Tool(Enum):
    """How the environment is made."""

    UV = "uv"
    FETCH_UV = "uv, fetched first"
    PIP = "venv and pip"


@dataclass(frozen=True)
class InstallPlan:
    """What has to be done on the host, and where things will be."""

    environment: str
    code: str
    make_environment: bool
    send_code: bool
    requirements: Requirements
    run_dir: str
    remote_key: str
    root: str
    tool: Tool = Tool.UV
    python: Python | None = None
    """The interpreter the environment is made from; None lets uv fetch one."""
    uv: str = ""
    packages: tuple[str, ...] = ()
    torch_backend: str = ""
    """For uv: which build of torch, `auto` for the host's driver or `cpu`; empty where no torch is wanted."""

    @property
    def interpreter(self) -> str:
        """The environment's Python."""
        return f"{self.environment}/bin/python"

    @property
    def nothing_to_do(self) -> bool:
        """Whether everything is in place."""
        return not (self.make_environment or self.send_code)


def plan(report: HostReport, wanted: Requirements, code_key: str, *, tool: Tool | None = None) -> InstallPlan:
    """Decide what is missing on the host; raises HostError when it can't be set up.

    A report that is not full (no Pythons looked for) is enough where the environment is in place.
    """
    backend = torch_backend(report, wanted)
    name = _name(report, wanted)
    made = name in report.environments
    chosen, python = (Tool.UV, None) if made else _choose(report, wanted, tool)
    return InstallPlan(
        environment=f"{report.root}/env/{name}",
        code=f"{report.root}/code/{code_key}",
        make_environment=not made,
        send_code=code_key not in report.codes,
        requirements=wanted,
        run_dir=report.run_dir,
        remote_key=report.remote_key,
        root=report.root,
        tool=chosen,
        python=python,
        uv=report.uv,
        packages=wanted.packages if made else bounded(wanted.packages, report),
        torch_backend=backend,
    )


def _name(report: HostReport, wanted: Requirements) -> str:
    # A home may serve hosts with and without a GPU, which need different builds of torch.
    backend = torch_backend(report, wanted)
    return "-".join(part for part in (wanted.key, report.platform, {"auto": "cuda"}.get(backend, backend)) if part)


def is_made(report: HostReport, wanted: Requirements) -> bool:
    """Whether the environment is there."""
    return _name(report, wanted) in report.environments


def plan_anew(report: HostReport, wanted: Requirements, code_key: str) -> InstallPlan:
    """Return the plan that takes nothing of what is on the host for good."""
    return plan(replace(report, environments=frozenset(), codes=frozenset()), wanted, code_key)


def torch_backend(report: HostReport, wanted: Requirements) -> str:
    """Return which build of torch the host needs: CUDA is never installed on a host without a GPU."""
    if not any(package.startswith("torch") for package in wanted.packages):
        return ""
    return "auto" if report.gpus else "cpu"


def bounded(packages: tuple[str, ...], report: HostReport) -> tuple[str, ...]:
    """Return the packages with torch held to versions whose CUDA the host's driver runs; raises HostError.

    uv finds the build that fits by itself; this bound is what keeps pip, and uv where it must choose by it, right.
    """
    drivers = [int(gpu.driver.split(".")[0]) for gpu in report.gpus if gpu.driver.split(".")[0].isdigit()]
    if not drivers:
        return packages
    for oldest, bound in TORCH_BY_DRIVER:
        if min(drivers) >= oldest:
            return tuple(package + bound if package.startswith("torch") else package for package in packages)
    raise HostError(
        f"The NVIDIA driver {report.gpus[0].driver} on {report.hostname} is too old for nnInteractive's torch.",
        f"It has to be {TORCH_BY_DRIVER[-1][0]} or newer; --engine region needs none.",
    )


def _choose(report: HostReport, wanted: Requirements, tool: Tool | None) -> tuple[Tool, Python | None]:
    if report.system not in ("Linux", "Darwin"):
        raise HostError(
            f"{report.hostname} runs {report.system}, where dls can't start its server.",
            "Hosts with Linux or macOS work; on Windows, start `dls serve` by hand and forward its port.",
        )
    if 0 < report.free_mib < wanted.disk_mib:
        raise HostError(
            f"{report.root} on {report.hostname} has {report.free_mib} MiB free; the packages need {wanted.disk_mib}.",
            "Free some space, or name another place with --remote-dir.",
        )
    usable = [python for python in report.pythons if python.version[:2] in PREFERRED]
    usable.sort(key=lambda python: PREFERRED.index(python.version[:2]))
    able = [python for python in usable if python.has_venv]
    if tool is Tool.PIP and able:
        return Tool.PIP, able[0]
    if report.uv:
        return Tool.UV, usable[0] if usable else None
    if able:
        return Tool.FETCH_UV, able[0]
    with_pip = [python for python in (*usable, *report.pythons) if python.has_pip]
    if with_pip:
        return Tool.FETCH_UV, with_pip[0]
    raise HostError(_no_python(report), "Install one (on Debian and Ubuntu: apt install python3-venv), or uv.")


def _no_python(report: HostReport) -> str:
    if not report.pythons:
        return f"{report.hostname} has no Python."
    seen = ", ".join(f"{'.'.join(map(str, python.version))} at {python.path}" for python in report.pythons)
    return f"{report.hostname} has no Python from 3.10 to 3.14 that can make an environment (found: {seen})."


def environment_script(plan: InstallPlan, *, own_caches: bool) -> str:
    """Return the script that makes the environment: locked, in a temporary place, moved when whole."""
    quote = shlex.quote
    packages = " ".join(quote(package) for package in plan.packages or plan.requirements.packages)
    backend = f"--torch-backend={plan.torch_backend}" if plan.torch_backend else ""
    complete = json.dumps({"format": ENVIRONMENT_FORMAT, "packages": plan.requirements.packages})
    caches = (
        f"export UV_CACHE_DIR={quote(plan.root)}/cache/uv PIP_CACHE_DIR={quote(plan.root)}/cache/pip"
        if own_caches
        else ":"
    )
    # A Python too old for the server can still fetch uv, which then brings a newer one.
    new_enough = plan.python is not None and plan.python.version[:2] in PREFERRED
    host_python = quote(plan.python.path) if plan.python else ""
    base_python = host_python if new_enough else MANAGED_PYTHON
    making = {
        Tool.UV: f"with_uv {quote(plan.uv)}",
        Tool.FETCH_UV: 'fetch_uv && with_uv "$ROOT/uv/bin/uv"',
        Tool.PIP: "false",
    }[plan.tool]
    pip_too = "with_pip" if new_enough and plan.python and plan.python.has_venv else "false"
    return f"""
set -u
umask 077
exec 2>&1
ROOT={quote(plan.root)}
ENV={quote(plan.environment)}
{private_directory(plan.run_dir)}
{LOCK}
{caches}
export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 UV_NO_CONFIG=1 UV_NO_PROGRESS=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX
fetch_uv() {{
  [ -x "$ROOT/uv/bin/uv" ] && return 0
  echo "fetching uv"
  if {host_python or "false"} -m pip --version >/dev/null 2>&1; then
    {host_python or "false"} -m pip install --quiet --target "$TEMP/uv" uv || return 1
  else
    {host_python or "false"} -m venv "$TEMP/venv" || return 1
    "$TEMP/venv/bin/python" -m pip install --quiet --target "$TEMP/uv" uv || return 1
  fi
  rm -rf "$ROOT/uv" && mv "$TEMP/uv" "$ROOT/uv"
}}
with_uv() {{
  rm -rf "$TEMP/env"
  "$1" venv --quiet --python {base_python} "$TEMP/env" || return 1
  "$1" pip install {backend} --python "$TEMP/env/bin/python" {packages}
}}
with_pip() {{
  rm -rf "$TEMP/env"
  echo "making the environment with venv and pip"
  {host_python or "false"} -m venv "$TEMP/env" || return 1
  if [ -n "{"cpu" if plan.torch_backend == "cpu" else ""}" ]; then
    echo "looking whether pip would bring CUDA to a host without a GPU"
    "$TEMP/env/bin/python" -m pip install --dry-run --quiet --report "$TEMP/report" {packages} || return 1
    if grep -q '"name": "nvidia-' "$TEMP/report"; then
      echo "pip would install torch with CUDA, several GB, on a host without a GPU"
      echo "install uv there, or hold pip to a CPU build of torch (PIP_CONSTRAINT)"
      return 1
    fi
  fi
  "$TEMP/env/bin/python" -m pip install --progress-bar off {packages}
}}
mkdir -p "$ROOT/env" || exit 73
lock {quote(plan.run_dir)}/install.lock
if [ -f "$ENV/complete.json" ] && [ -x "$ENV/bin/python" ]; then echo "made by another dls meanwhile"; exit 0; fi
# What a killed installer left behind on this host.
for D in "$ROOT/env/.making-$(uname -n)-"*; do
  [ -d "$D" ] && ! kill -0 "${{D##*-}}" 2>/dev/null && rm -rf "$D"
done
TEMP="$ROOT/env/.making-$(uname -n)-$$"
mkdir "$TEMP" || exit 73
{{ {making}; }} || {pip_too} || exit 74
cat >"$TEMP/env/complete.json" <<'END'
{complete}
END
rm -rf "$ENV" && mv "$TEMP/env" "$ENV" || exit 73
"""


def code_script(plan: InstallPlan, archive: bytes) -> str:
    """Return the script that brings our code and unpacks it: beside its place, moved there when whole.

    In one script: each step of its own, such as a transfer by SFTP, would cost some round trips of the link.
    """
    quote = shlex.quote
    return f"""
set -eu
umask 077
mkdir -p {quote(plan.root)}/code
T={quote(plan.code)}.making-$$
trap 'rm -rf "$T" "$T.zip"' EXIT
base64 -d >"$T.zip" <<'END-OF-ARCHIVE'
{base64.encodebytes(archive).decode()}END-OF-ARCHIVE
{quote(plan.interpreter)} -m zipfile -e "$T.zip" "$T"
[ -d {quote(plan.code)}/dls ] || mv "$T" {quote(plan.code)}
"""


def install(connection: Connection, plan: InstallPlan, code: Code, phase: Phase, *, own_caches: bool) -> None:
    """Do what the plan says, showing the installer's lines as they come."""
    if plan.make_environment:
        _make_environment(connection, plan, phase, own_caches)
    if plan.send_code:
        phase.update("sending our code")
        _send_code(connection, plan, code)


def set_aside(connection: Connection, plan: InstallPlan) -> None:
    """Let nobody take what is damaged for whole; it is replaced when its successor is."""
    connection.run(f"rm -f {shlex.quote(plan.environment)}/complete.json; rm -rf {shlex.quote(plan.code)}")


def _make_environment(connection: Connection, plan: InstallPlan, phase: Phase, own_caches: bool) -> None:
    lines: deque[str] = deque(maxlen=LAST_LINES)

    def show(line: str) -> None:
        lines.append(line)
        phase.update(line.strip())

    phase.update(f"making an environment with {plan.tool.value}")
    done = connection.run(environment_script(plan, own_caches=own_caches), on_line=show, timeout=1800)
    if done.status == 71:
        raise not_ours(connection, plan)
    if done.status:
        raise InstallError(
            f"The packages could not be installed on {connection.target.label}.",
            "Its last lines stand above. Has the host a way to the internet, and room on its disk?",
            detail="\n".join(lines) or done.stderr,
        )


def not_ours(connection: Connection, plan: InstallPlan) -> HostError:
    """Return the error for a run directory that another user made first (a script's status 71)."""
    return HostError(
        f"{plan.run_dir} on {connection.target.label} belongs to somebody else.",
        "Name a directory of your own with --remote-dir.",
    )


def _send_code(connection: Connection, plan: InstallPlan, code: Code) -> None:
    made = connection.run(code_script(plan, code.archive()))
    if made.status:
        raise InstallError(
            f"Our code could not be put on {connection.target.label}.",
            "Is the disk full or read-only? Another place can be named with --remote-dir.",
            detail=made.stderr or made.stdout,
        )
