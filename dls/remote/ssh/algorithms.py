"""The algorithms to propose to a host, from what paramiko has and what the SSH configuration allows."""

from __future__ import annotations

from collections.abc import Iterable

import paramiko

from dls.errors import TargetError
from dls.remote.ssh.target import Algorithms

PREFERRED_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
"""Ciphers to propose first: paramiko puts AES-GCM last, behind 3DES; it has 1.5 to 2 times the throughput."""
WEAK = frozenset(["aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc", "hmac-md5", "hmac-md5-96", "hmac-sha1-96"])
"""What paramiko proposes and OpenSSH does not: it is used only where the configuration names it."""


def propose(options: paramiko.transport.SecurityOptions, allowed: Algorithms) -> None:
    """Set the key exchanges, ciphers and MACs to propose; raises TargetError where none is left."""
    if name := unsupported(allowed):
        raise TargetError(
            f"paramiko has none of the algorithms that {name} of the SSH configuration allows.",
            "Allow another one, or let this computer's ssh log in: --carrier openssh.",
        )
    options.kex = choose(allowed.kex, options.kex)
    options.digests = choose(allowed.macs, options.digests)
    known = tuple(options.ciphers)
    options.ciphers = choose(allowed.ciphers, (*PREFERRED_CIPHERS, *(c for c in known if c not in PREFERRED_CIPHERS)))


def choose(allowed: tuple[str, ...], ours: Iterable[str]) -> tuple[str, ...]:
    """Return what both lists have, in the order of `allowed`; without a restriction all of `ours` but the weak ones."""
    known = tuple(ours)
    if allowed:
        return tuple(name for name in allowed if name in known)
    return tuple(name for name in known if name not in WEAK)


def unsupported(allowed: Algorithms) -> str:
    """Return the setting of which paramiko has no algorithm; empty where it has one of each kind."""
    ours = {
        "KexAlgorithms": (allowed.kex, paramiko.Transport._preferred_kex),  # type: ignore[attr-defined]
        "Ciphers": (allowed.ciphers, paramiko.Transport._preferred_ciphers),  # type: ignore[attr-defined]
        "MACs": (allowed.macs, paramiko.Transport._preferred_macs),  # type: ignore[attr-defined]
        "HostKeyAlgorithms": (allowed.host_keys, tuple(paramiko.Transport._key_info)),  # type: ignore[attr-defined]
    }
    return next((name for name, (wanted, known) in ours.items() if wanted and not choose(wanted, known)), "")
