"""What this computer brings: its `ssh`, its agent, the local port, and a proxy that would catch it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping

from dls.contract import DEFAULT_PORT
from dls.remote import web_proxy
from dls.remote.doctor.findings import Findings
from dls.remote.ssh.openssh_config import find_ssh

VERSION_SECONDS = 5.0


def examine(findings: Findings, environment: Mapping[str, str] = os.environ) -> None:
    """Look at this computer."""
    program = find_ssh()
    if program is None:
        findings.warn(
            "ssh",
            "This computer has no ssh: dls reads ~/.ssh/config by itself, and knows less of it.",
            "Install OpenSSH's client.",
        )
    else:
        findings.ok("ssh", f"{_version(program)} at {program}")
    if _is_free(DEFAULT_PORT):
        findings.ok("local port", f"Port {DEFAULT_PORT} is free.")
    else:
        findings.warn("local port", f"Port {DEFAULT_PORT} is taken: dls connect uses the next free one.")
    if variable := web_proxy.catching_variable(environment):
        findings.warn(
            "web proxy",
            f"{variable} is set and no_proxy does not except localhost: viewers would ask the proxy.",
            web_proxy.advice(variable),
        )
    else:
        findings.ok("web proxy", "None stands between a viewer and the local port.")


def _version(program: str) -> str:
    try:
        done = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "ssh"
    return done.stderr.strip().partition(",")[0] or "ssh"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if os.name != "nt":  # as the local port itself does
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
