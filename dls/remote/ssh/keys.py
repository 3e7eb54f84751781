"""Which of a user's keys are offered to a host, in which order, and with which signatures: pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dls.remote.ssh.key_files import KeyFile
from dls.remote.ssh.key_types import CERTIFICATE
from dls.remote.ssh.public_keys import FIELDS, PublicKey, kind_of_key, parse_public_key

OLD = ("ssh-dss",)
"""Kinds that OpenSSH offers only where the configuration says so."""
RSA_ALGORITHMS = ("rsa-sha2-512", "rsa-sha2-256")
"""Signatures that an RSA key makes (RFC 8332), the best one first; SHA-1 is used only where the configuration asks."""


def choose_algorithm(kind: str, accepted: Sequence[str], host: Sequence[str]) -> str | None:
    """Return the signature algorithm for a key of this kind, or None where there is none.

    `accepted` is the configuration's PubkeyAcceptedAlgorithms, `host` what the host announced (RFC 8308); an empty one
    allows all.
    """
    if kind_of_key(kind) in OLD or kind_of_key(kind) not in FIELDS:
        return kind if kind in accepted else None
    names = [kind]
    if kind.startswith("ssh-rsa"):
        end = kind.removeprefix("ssh-rsa")
        names = [name + end for name in RSA_ALGORITHMS] + ([kind] if kind in accepted else [])
        if host:
            names = [name for name in names if name.removesuffix(CERTIFICATE) in host]
    return next((name for name in names if not accepted or name in accepted), None)


class AgentKey(Protocol):
    """A key that an agent holds."""

    @property
    def public(self) -> PublicKey:
        """The public half, or the certificate."""

    @property
    def comment(self) -> str:
        """The comment, mostly the file that the key came from."""

    def sign(self, algorithm: str, data: bytes, on_slow: Callable[[], None]) -> bytes:
        """Return a signature; `on_slow` is called when the agent seems to wait for its person."""


@dataclass(frozen=True)
class Certificate:
    """A certificate in a file, and the key that it certifies."""

    path: Path
    public: PublicKey
    key: PublicKey


@dataclass(frozen=True)
class Candidate:
    """A public half that can be offered to the host, and what can sign with it."""

    name: str
    """The key in words: "the key id_ed25519"."""
    public: PublicKey | None
    """None for a file that shows its public half only to those who know the passphrase."""
    agent_key: AgentKey | None = None
    file: KeyFile | None = None
    """The file with the private half; the agent signs first where it has the key, too."""

    @property
    def is_locked(self) -> bool:
        """Whether a signature needs a passphrase."""
        return self.agent_key is None and self.file is not None and self.file.is_locked

    @property
    def needs_security_key(self) -> bool:
        """Whether only a security key (FIDO) can sign, and no agent speaks to it."""
        return self.agent_key is None and self.file is not None and self.file.is_handle


@dataclass(frozen=True)
class KeyRing:
    """All keys that a login may offer."""

    files: Sequence[KeyFile] = ()
    """The files that could be read, in the order of the configuration."""
    agent_keys: Sequence[AgentKey] = ()
    certificates: Sequence[Certificate] = ()
    """Those of CertificateFile, or else those that stand beside the key files."""
    named: frozenset[Path] = field(default_factory=frozenset)
    """The key files that an option or the configuration names."""
    identities_only: bool = False
    """Whether the agent's other keys are left out (IdentitiesOnly)."""
    certificates_first: bool = False
    """Whether the configuration names the certificates (CertificateFile): then they come before all keys."""

    def candidates(self) -> list[Candidate]:
        """Return what to offer, in order.

        Like OpenSSH: certificates that are named, the agent's keys that the configuration names, the agent's others,
        files. Unlike it, a file that is named and needs no passphrase comes before the agent's other keys, as the host
        may refuse us after six, and keys that ask the person for something come last. Certificates precede their keys.
        """
        ranked = sorted(self._ranked(), key=lambda pair: pair[0])  # stable: equal ranks keep their order
        found: dict[bytes | Path, Candidate] = {}
        for _, candidate in ranked:
            found.setdefault(_identity(candidate), candidate)
        return list(found.values())

    def _ranked(self) -> Iterator[tuple[int, Candidate]]:
        for certificate in self.certificates:
            yield from self._certificate(certificate)
        for file in self.files:
            agent_key = self._in_agent(file.public)
            if agent_key is not None:
                yield 1, Candidate(f"the key {file.path.name} of the SSH agent", file.public, agent_key, file)
            elif file.can_sign or file.is_handle:
                yield self._rank(file), Candidate(f"the key {file.path.name}", file.public, None, file)
        for key in () if self.identities_only else self.agent_keys:
            name = f"the key {key.comment} of the SSH agent" if key.comment else "a key of the SSH agent"
            yield 3, Candidate(name, key.public, key)

    def _certificate(self, certificate: Certificate) -> Iterator[tuple[int, Candidate]]:
        """Yield the certificate with whatever can sign for it: the agent as it has the certificate, or only its key."""
        name = f"the certificate {certificate.path.name}"
        agent_key = self._in_agent(certificate.public) or self._in_agent(certificate.key)
        holders = [file for file in self.files if file.public == certificate.key and file.can_sign]
        file = next(iter(sorted(holders, key=lambda each: each.is_locked)), None)
        if agent_key is not None:
            yield 0 if self.certificates_first else 1, Candidate(name, certificate.public, agent_key, file)
        elif file is not None:
            first = self.certificates_first and not file.is_locked
            yield 0 if first else self._rank(file), Candidate(name, certificate.public, None, file)

    def _rank(self, file: KeyFile) -> int:
        is_named = file.path in self.named
        if file.is_handle:
            return 5
        if file.is_locked:
            return 8 if file.public is None else 6 if is_named else 7
        return 2 if is_named else 4

    def _in_agent(self, public: PublicKey | None) -> AgentKey | None:
        return next((key for key in self.agent_keys if public is not None and key.public == public), None)


def _identity(candidate: Candidate) -> bytes | Path:
    if candidate.public is not None:
        return candidate.public.blob
    assert candidate.file is not None
    return candidate.file.path


def certificates_in(paths: Iterable[Path]) -> tuple[list[Certificate], dict[Path, str]]:
    """Read certificate files; returns those that can be used, and why the others can't."""
    found, problems = [], {}
    for path in paths:
        try:
            public = parse_public_key(path.read_text(encoding="utf-8", errors="replace"))
            if public is None:
                raise ValueError("it holds no certificate")
            found.append(Certificate(path, public, public.certified))
        except OSError as error:
            problems[path] = str(error.strerror)
        except ValueError as error:
            problems[path] = f"it is not a user's certificate ({error})"
    return found, problems
