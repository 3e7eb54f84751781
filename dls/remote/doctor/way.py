"""The way to the host, before the login: configuration, name, connection, greeting, host key, ways to log in."""

from __future__ import annotations

from dls.errors import DlsError, HostKeyError
from dls.remote.doctor.findings import Findings
from dls.remote.login import CarrierChoice, LoginOptions, choose, resolve_hops
from dls.remote.ssh.agent import agent_places
from dls.remote.ssh.exceptions import NoCommonAlgorithm
from dls.remote.ssh.openssh_config import find_ssh, is_file
from dls.remote.ssh.survey import Survey, addresses, survey
from dls.remote.ssh.target import Target

KEY_ADVICE = {
    "new": "Compare the fingerprint with the one that whoever runs the host gives; dls connect asks.",
    "changed": "Somebody may be listening in; ask whoever runs the host.",
    "revoked": "Somebody may be listening in; ask whoever runs the host.",
}


def examine(destination: str, options: LoginOptions, findings: Findings) -> bool:
    """Look at the way up to the login; False where there is none."""
    notes: list[str] = []
    try:
        hops = resolve_hops(destination, options, notes.append)
        choice = choose(hops, options)
    except DlsError as error:
        findings.fail("configuration", error)
        return False
    _describe(hops, choice, notes, findings)
    first = hops[0]
    if first.proxy_command:
        findings.ok("name", f"Left to the ProxyCommand, {first.proxy_command.split()[0]}.")
    elif not _look_up(first, findings):
        return False
    if choice.carrier == "openssh":
        findings.unknown("greeting", "Left to ssh.")
        return True
    return _survey(first, findings, options)


def _describe(hops: tuple[Target, ...], choice: CarrierChoice, notes: list[str], findings: Findings) -> None:
    way = " -> ".join(f"{hop.user}@{hop.host}:{hop.port}" for hop in hops)
    findings.ok("configuration", f"The way: {way}")
    for note in notes:
        findings.warn("configuration", note)
    if choice.carrier == "openssh":
        why = "it shares a connection that is open" if choice.shared else choice.reason or "--carrier demands it"
        findings.ok("carrier", f"This computer's ssh logs in: {why}.")
    elif choice.reason:
        findings.warn(
            "carrier",
            f"dls can't honour {choice.reason} by itself.",
            "Leave --carrier out, or install OpenSSH's client.",
        )
    else:
        findings.ok("carrier", "paramiko logs in by itself.")
    keys = [str(path) for path in hops[-1].identities if is_file(path)]
    agents = agent_places(hops[-1].identity_agent)
    findings.ok("keys", f"Key files: {', '.join(keys) or 'none'}; agent: {', '.join(agents) or 'none'}")


def _look_up(first: Target, findings: Findings) -> bool:
    try:
        found = addresses(first)
        is_address = found == [first.host]
        findings.ok("name", f"{first.host} is an address." if is_address else f"{first.host} is {', '.join(found)}")
    except DlsError as error:
        findings.fail("name", error)
        return False
    return True


def _survey(first: Target, findings: Findings, options: LoginOptions) -> bool:
    try:
        found = survey(first)
    except NoCommonAlgorithm as error:
        if options.carrier == "auto" and find_ssh() is not None:
            findings.warn("connection", f"{error.message} This computer's ssh would log in.")
            return True
        findings.fail("connection", error)
        return False
    except DlsError as error:
        findings.fail("connection", error)
        return False
    findings.ok("connection", f"Port {first.port} of {first.label} opened in {found.seconds * 1000:.0f} ms.")
    findings.ok("greeting", found.greeting)
    methods = ", ".join(found.methods)
    findings.ok("ways to log in", f"{first.label} accepts: {methods or 'a login without any'}")
    return _judge_key(first, found, findings, options)


def _judge_key(first: Target, found: Survey, findings: Findings, options: LoginOptions) -> bool:
    text = f"{found.key_type} {found.fingerprint} is {found.key_status}."
    if found.key_status == "known":
        findings.ok("host key", text)
    elif found.key_status == "new" and (options.accept_new_host_key or first.strict_host_key_checking != "yes"):
        findings.warn("host key", text, KEY_ADVICE["new"])
    else:
        findings.fail("host key", HostKeyError(f"The host key {text}", KEY_ADVICE[found.key_status]))
        return False
    return True
