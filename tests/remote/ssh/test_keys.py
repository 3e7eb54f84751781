"""Which keys are offered, in which order, and key files of every format; each login made by ssh too."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dls.demo import sshd
from dls.errors import LoginError
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.exceptions import NeedsOpenSsh
from dls.remote.ssh.key_files import KeyFile, read_key_file, unlock
from dls.remote.ssh.keys import Certificate, KeyRing, choose_algorithm
from dls.remote.ssh.prompts import NoPrompter
from dls.remote.ssh.public_keys import PublicKey, parse_public_key
from dls.remote.ssh.target import Target
from dls.remote.ssh.wire import string
from tests.support.logins import target_of
from tests.support.prompters import ScriptedPrompter

PASSPHRASE = "open sesame"
CERT = "-cert-v01@openssh.com"


@pytest.fixture
def server(short_folder: Path) -> Iterator[sshd.Server]:
    """A server of which a test may change the accepted keys."""
    with sshd.running(short_folder) as running:
        yield running


def keygen(*arguments: str | Path) -> None:
    subprocess.run(["ssh-keygen", "-q", *map(str, arguments)], check=True, capture_output=True)


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "", *more: str) -> Path:
    keygen("-t", kind, "-N", passphrase, "-f", path, *more)
    return path


def allow(server: sshd.Server, *keys: Path) -> None:
    """Let the server accept these keys only."""
    text = "".join(Path(f"{key}.pub").read_text() for key in keys)
    (server.config.parent / "authorized_keys").write_text(text)


def log_in(target: Target, prompter: NoPrompter) -> str:
    connection = Connection.open(target, prompter)
    connection.close()
    return connection.credential


def ssh_enters(server: sshd.Server, *options: str) -> bool:
    """Whether OpenSSH's own client logs in with these options, without a question."""
    command = ["ssh", "-F", str(server.config), "-o", "BatchMode=yes", *options, "dls-demo", "true"]
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0


def pkcs8(path: Path, passphrase: str = "") -> None:
    """Write a new Ed25519 key in PKCS#8, as OpenSSL does, with its public half beside it."""
    key = Ed25519PrivateKey.generate()
    encryption = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(*form, encryption))
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    Path(f"{path}.pub").write_bytes(public + b"\n")


FORMATS: dict[str, Callable[[Path, str], object]] = {
    "ed25519": lambda path, passphrase: make_key(path, "ed25519", passphrase),
    "rsa": lambda path, passphrase: make_key(path, "rsa", passphrase),
    "ecdsa-384": lambda path, passphrase: make_key(path, "ecdsa", passphrase, "-b", "384"),
    "rsa in PEM": lambda path, passphrase: make_key(path, "rsa", passphrase, "-m", "PEM"),
    "ecdsa in PEM": lambda path, passphrase: make_key(path, "ecdsa", passphrase, "-m", "PEM"),
    "rsa in PKCS8": lambda path, passphrase: make_key(path, "rsa", passphrase, "-m", "PKCS8"),
    "ed25519 in PKCS8": pkcs8,
}


@pytest.mark.parametrize("form", FORMATS)
def test_a_key_file(server: sshd.Server, tmp_path: Path, form: str) -> None:
    """A key of each kind and format logs in, by ssh and by us."""
    FORMATS[form](tmp_path / "k", "")
    allow(server, tmp_path / "k")
    assert log_in(replace(target_of(server), identities=(tmp_path / "k",)), NoPrompter()) == "the key k"
    if form != "ed25519 in PKCS8":  # which OpenSSH 9.2 does not read
        assert ssh_enters(server, "-o", "IdentityFile=none", "-i", str(tmp_path / "k"))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("beside", [True, False], ids=["with .pub", "alone"])
def test_a_key_file_with_a_passphrase(server: sshd.Server, tmp_path: Path, form: str, beside: bool) -> None:
    """A wrong passphrase is named as such before it is asked again, whatever the file shows of its public half."""
    key = tmp_path / "k"
    FORMATS[form](key, PASSPHRASE)
    allow(server, key)
    if not beside:
        Path(f"{key}.pub").unlink()
    person = ScriptedPrompter({"Passphrase": ["wrong", PASSPHRASE]})
    assert log_in(replace(target_of(server), identities=(key,)), person) == "the key k"
    assert person.told == [f"That is not the passphrase of the key {key}."]


def test_no_passphrase_is_asked_for_a_key_that_the_host_does_not_want(server: sshd.Server, tmp_path: Path) -> None:
    """The public half is offered first, from the file itself or from the `.pub` file beside it."""
    keys = (make_key(tmp_path / "a", "ed25519", PASSPHRASE), make_key(tmp_path / "b", "rsa", PASSPHRASE, "-m", "PEM"))
    person = ScriptedPrompter()
    with pytest.raises(LoginError) as caught:
        log_in(replace(target_of(server), identities=keys), person)
    assert person.asked == []
    assert [line.split() for line in caught.value.detail.splitlines()[1:-1]] == [
        ["the", "key", "a", "not", "accepted"],
        ["the", "key", "b", "not", "accepted"],
    ]


def test_files_that_can_not_be_used_are_named(server: sshd.Server, tmp_path: Path) -> None:
    """A key file that can't be read is named with the reason, and the next one is tried."""
    texts = {
        "putty": "PuTTY-User-Key-File-3: ssh-ed25519\n",
        "garbage": "hello\n",
        "cut": "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        "pem": "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    make_key(tmp_path / "only")
    paths = [tmp_path / name for name in texts] + [tmp_path / "only.pub", tmp_path, tmp_path / "none"]
    person = ScriptedPrompter()
    target = target_of(server)
    assert log_in(replace(target, identities=(*paths, *target.identities)), person) == "the key id_ed25519"
    told = dict(line.removeprefix("The key ").split(" was passed over: ") for line in person.told)
    reasons = [told.pop(str(path), "") for path in paths]
    assert ["PuTTYgen" in reasons[0], *reasons[1:4]] == [True, "it holds no private key.", *["it is damaged."] * 2]
    assert "public key" in reasons[4] and reasons[5:] == ["Is a directory.", ""] and told == {}


def test_two_keys_where_the_host_wants_two(short_folder: Path) -> None:
    """`AuthenticationMethods publickey,publickey` takes two different keys; with one the login is refused."""
    with sshd.running(short_folder, options="AuthenticationMethods publickey,publickey") as server:
        first, second = short_folder / "id_ed25519", make_key(short_folder / "second")
        with (short_folder / "authorized_keys").open("a") as file:
            file.write(Path(f"{second}.pub").read_text())
        target = replace(target_of(server), identities=(first, second))
        assert log_in(target, NoPrompter()) == "the key id_ed25519 and the key second"
        with pytest.raises(LoginError) as caught:
            log_in(replace(target, identities=(first,)), NoPrompter())
        assert "the key id_ed25519  accepted" in caught.value.detail


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
@pytest.mark.parametrize("place", ["beside", "CertificateFile"])
def test_certificates(short_folder: Path, kind: str, place: str) -> None:
    """A certificate is offered before its key; where the host knows no authority, the plain key gets in."""
    authority, key = make_key(short_folder / "ca"), make_key(short_folder / "k", kind)
    keygen("-s", authority, "-I", "test", "-n", "root", f"{key}.pub")
    certificate = Path(f"{key}-cert.pub")
    if place == "CertificateFile":
        certificate = certificate.rename(short_folder / "elsewhere.pub")
    trust = f"TrustedUserCAKeys {authority}.pub"
    for options, name in ((trust, f"the certificate {certificate.name}"), ("", "the key k")):
        folder = short_folder / (options and "trusting")
        folder.mkdir(exist_ok=True)
        with sshd.running(folder, options=f"{options}\nAuthorizedPrincipalsFile none") as server:
            allow(server, *([] if options else [key]))
            certificates = (certificate,) if place == "CertificateFile" else ()
            target = replace(target_of(server), user="root", identities=(key,), certificates=certificates)
            assert log_in(target, NoPrompter()) == name
            given = ["-o", f"CertificateFile={certificate}"] if certificates else []
            assert ssh_enters(server, "-o", "IdentityFile=none", "-i", str(key), *given)


def security_key(path: Path) -> str:
    """Write a key file that stands for a key on a security key, and return its public half as a line."""
    kind = b"sk-ssh-ed25519@openssh.com"
    public = string(kind) + string(bytes(32)) + string(b"ssh:")
    content = b"openssh-key-v1\0" + string(b"none") + string(b"none") + string(b"") + (1).to_bytes(4, "big")
    encoded = base64.b64encode(content + string(public) + string(bytes(32))).decode()
    path.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{encoded}\n-----END OPENSSH PRIVATE KEY-----\n")
    return f"{kind.decode()} {base64.b64encode(public).decode()}\n"


def test_a_security_key_needs_openssh(server: sshd.Server, tmp_path: Path) -> None:
    """A key on a security key is left to ssh, where the host wants it, and after the other keys."""
    authorized = server.config.parent / "authorized_keys"
    usual = authorized.read_text()
    path, target = tmp_path / "id_ed25519_sk", target_of(server)
    line = security_key(path)
    with_both = replace(target, identities=(path, *target.identities))
    assert log_in(with_both, NoPrompter()) == "the key id_ed25519"
    with pytest.raises(LoginError) as caught:
        log_in(replace(target, identities=(path,)), NoPrompter())
    assert not isinstance(caught.value, NeedsOpenSsh)
    authorized.write_text(line)
    with pytest.raises(NeedsOpenSsh) as needed:
        log_in(with_both, NoPrompter())
    assert needed.value.reason == "the security key id_ed25519_sk"
    authorized.write_text(usual)


def test_accepted_algorithms(server: sshd.Server, tmp_path: Path) -> None:
    """A key whose signatures the configuration does not accept (PubkeyAcceptedAlgorithms) is not offered."""
    target = target_of(server)
    algorithms = replace(target.algorithms, public_keys=("rsa-sha2-512",))
    with pytest.raises(LoginError) as caught:
        log_in(replace(target, algorithms=algorithms), NoPrompter())
    assert "not offered: ssh-ed25519 is not among the accepted algorithms" in caught.value.detail
    assert not ssh_enters(server, "-o", "PubkeyAcceptedAlgorithms=rsa-sha2-512")


def test_the_algorithm_of_a_signature() -> None:
    """RSA signs with SHA-2, with SHA-1 only where it is asked for; the host's announcement is followed."""
    assert choose_algorithm("ssh-rsa", (), ()) == "rsa-sha2-512"
    assert choose_algorithm("ssh-rsa", (), ("rsa-sha2-256", "ssh-rsa")) == "rsa-sha2-256"
    assert choose_algorithm("ssh-rsa", (), ("ssh-rsa",)) is None
    assert choose_algorithm("ssh-rsa", ("ssh-rsa",), ("ssh-rsa",)) == "ssh-rsa"
    assert choose_algorithm(f"ssh-rsa{CERT}", (), ("rsa-sha2-512",)) == f"rsa-sha2-512{CERT}"
    assert choose_algorithm("ssh-ed25519", ("rsa-sha2-512",), ()) is None
    assert choose_algorithm(f"sk-ssh-ed25519{CERT}", (), ()) == f"sk-ssh-ed25519{CERT}"
    assert choose_algorithm("ssh-dss", (), ()) is None and choose_algorithm("ssh-dss", ("ssh-dss",), ()) == "ssh-dss"


@dataclass(frozen=True)
class Held:
    """A key in an agent."""

    public: PublicKey
    comment: str = ""

    def sign(self, algorithm: str, data: bytes, on_slow: Callable[[], None]) -> bytes:
        return b""


def key_of(name: str) -> PublicKey:
    return PublicKey(string(b"ssh-ed25519") + string(name.encode()))


def file_of(name: str, *, locked: bool = False, private: bool = True) -> KeyFile:
    key = Ed25519PrivateKey.generate() if private and not locked else None
    return KeyFile(Path(name), key_of(name), key, is_locked=locked)


def order(ring: KeyRing) -> list[str]:
    return [candidate.name.removeprefix("the ") for candidate in ring.candidates()]


def test_the_order_of_keys() -> None:
    """What is named comes first, then the agent's others, then default files, and last what needs a passphrase."""
    files = [file_of("locked", locked=True), file_of("default"), file_of("named"), file_of("pub", private=False)]
    agent = [Held(key_of("other"), "other"), Held(key_of("pub"), "pub")]
    named = frozenset({Path("named"), Path("locked"), Path("pub")})
    ring = KeyRing(files, agent, (), named)
    expected = ["key pub of the SSH agent", "key named", "key other of the SSH agent", "key default", "key locked"]
    assert order(ring) == expected
    assert order(replace(ring, identities_only=True)) == [expected[0], expected[1], *expected[3:]]


def test_the_order_of_certificates() -> None:
    """A certificate stands before its key; those that are named stand before all; one without its key is left out."""
    certificates = [Certificate(Path(f"{n}-cert.pub"), key_of(f"c{n}"), key_of(n)) for n in ("plain", "held", "none")]
    ring = KeyRing([file_of("plain")], [Held(key_of("held"), "held")], certificates)
    held = "key held of the SSH agent"
    assert order(ring) == ["certificate held-cert.pub", held, "certificate plain-cert.pub", "key plain"]
    first = ["certificate plain-cert.pub", "certificate held-cert.pub", held, "key plain"]
    assert order(replace(ring, certificates_first=True)) == first


def test_a_locked_key_in_the_agent_needs_no_passphrase() -> None:
    """An encrypted file is matched to the agent's key by the public half that it shows."""
    [candidate] = KeyRing([file_of("k", locked=True)], [Held(key_of("k"))], identities_only=True).candidates()
    assert not candidate.is_locked and candidate.agent_key is not None


def test_certificates_name_their_key(tmp_path: Path) -> None:
    """The key in a certificate of each kind is found; a host's certificate is none for a user."""
    authority = make_key(tmp_path / "ca")
    for kind in ("ed25519", "rsa", "ecdsa"):
        key = make_key(tmp_path / kind, kind)
        for options in (["-n", "ann"], ["-h", "-n", "gpu1"]):
            keygen("-s", authority, "-I", "x", *options, f"{key}.pub")
            certificate = parse_public_key(Path(f"{key}-cert.pub").read_text())
            assert certificate is not None and certificate.is_certificate
            if "-h" in options:
                with pytest.raises(ValueError, match="host"):
                    _ = certificate.certified
            else:
                assert certificate.certified == parse_public_key(Path(f"{key}.pub").read_text())


def test_a_passphrase_that_is_not_the_reason(tmp_path: Path) -> None:
    """A file whose cipher is unknown is no file with a wrong passphrase."""
    key = make_key(tmp_path / "k", "ed25519", PASSPHRASE, "-Z", "3des-cbc")
    file = read_key_file(key)
    assert file.is_locked and file.public is not None
    with pytest.raises(ValueError, match="encrypted in a way"):
        unlock(file, PASSPHRASE)
