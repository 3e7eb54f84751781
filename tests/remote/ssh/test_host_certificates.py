"""Host certificates: what is read from one, and what makes one worthless."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dls.remote.ssh.host_certificates import find_fault, is_certificate, is_signed, parse
from dls.remote.ssh.key_types import HOST_CERTIFICATE
from dls.remote.ssh.wire import MalformedError, Reader, join_strings
from tests.support.host_keys import blob_of, certify, make_key

KINDS = (("ed25519",), ("ecdsa", "-b", "256"), ("ecdsa", "-b", "384"), ("ecdsa", "-b", "521"), ("rsa", "-b", "2048"))
NOW = time.time()


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """An authority and a host's key."""
    for name in ("ca", "host"):
        make_key(tmp_path / name)
    return tmp_path / "ca", tmp_path / "host"


@pytest.mark.parametrize("authority", KINDS, ids=" ".join)
@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_certificates_of_all_kinds(tmp_path: Path, kind: tuple[str, ...], authority: tuple[str, ...]) -> None:
    """Each kind of key, signed by each kind of authority, is read and believed, for the hosts that it names only."""
    ca = make_key(tmp_path / "ca", *authority)
    make_key(tmp_path / "host", *kind)
    blob = blob_of(certify(tmp_path / "ca", tmp_path / "host", principals="gpu.org,*.lab.org"))
    certificate = parse(blob)
    assert certificate.kind == HOST_CERTIFICATE and certificate.principals == ("gpu.org", "*.lab.org")
    assert certificate.authority == blob_of(ca)
    assert is_signed(certificate)
    assert [find_fault(certificate, host, NOW) for host in ("gpu.org", "a.lab.org")] == ["", ""]
    assert find_fault(certificate, "cpu.org", NOW) == "is for gpu.org, *.lab.org"


def test_each_fault_is_named(keys: tuple[Path, Path]) -> None:
    """A certificate for users, one outside its time, one without names, or with an unknown option has its own words."""
    faults = {
        "is for users": certify(*keys, principals="gpu", user=True),
    }
    assert find_fault(parse(blob_of(faults["is for users"])), "gpu", NOW) == "is for users and not for hosts"
    made = parse(blob_of(certify(*keys, "-V", "20200101000000Z:20200102000000Z", principals="gpu")))
    assert find_fault(made, "gpu", NOW) == "has expired at 2020-01-02 00:00 UTC"
    assert find_fault(made, "gpu", made.valid_after - 1) == "is not valid before 2020-01-01 00:00 UTC"
    assert find_fault(made, "gpu", made.valid_after) == "" and find_fault(made, "gpu", made.valid_before - 1) == ""
    assert find_fault(made, "gpu", made.valid_before).startswith("has expired")
    assert find_fault(parse(blob_of(certify(*keys))), "gpu", NOW) == "names no host"
    many = parse(blob_of(certify(*keys, principals=",".join(f"h{n}" for n in range(9)))))
    assert find_fault(many, "gpu", NOW) == "is for h0, h1, h2, h3, h4, …"
    strict = parse(blob_of(certify(*keys, "-O", "critical:x@y=z", principals="gpu")))
    assert find_fault(strict, "gpu", NOW) == "has options that dls does not know"


def test_a_signature_by_sha1_is_not_believed(tmp_path: Path) -> None:
    """An authority's signature with SHA-1 is refused, as OpenSSH does by default."""
    make_key(tmp_path / "ca", "rsa", "-b", "2048")
    make_key(tmp_path / "host")
    made = parse(blob_of(certify(tmp_path / "ca", tmp_path / "host", "-t", "ssh-rsa", principals="gpu")))
    assert find_fault(made, "gpu", NOW) == "is signed with ssh-rsa, which is not safe"


def test_what_was_changed_after_signing_is_not_believed(keys: tuple[Path, Path]) -> None:
    """Each changed byte of a certificate makes it unreadable, or its signature wrong."""
    blob = blob_of(certify(*keys, principals="gpu"))
    assert find_fault(parse(blob), "gpu", NOW) == ""
    for place in range(len(blob)):
        changed = blob[:place] + bytes([blob[place] ^ 1]) + blob[place + 1 :]
        try:
            certificate = parse(changed)
        except MalformedError:
            continue
        assert find_fault(certificate, "gpu", NOW), f"byte {place} may be changed"


def test_what_is_cut_off_is_no_certificate(keys: tuple[Path, Path]) -> None:
    """A certificate that is cut off anywhere, one with something behind it, and a plain key are refused."""
    blob = blob_of(certify(*keys, principals="gpu"))
    for end in range(len(blob)):
        with pytest.raises(MalformedError):
            parse(blob[:end])
    with pytest.raises(MalformedError, match="more follows"):
        parse(blob + b"\0")
    with pytest.raises(MalformedError, match="no type of certificate"):
        parse(blob_of(keys[1].with_name("host.pub")))


def test_algorithms_of_certificates() -> None:
    """The name says whether an algorithm is one of certificates."""
    assert is_certificate("rsa-sha2-512-cert-v01@openssh.com") and not is_certificate("ssh-ed25519")


def token_signature(kind: str, private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Sign as a FIDO token does (OpenSSH's PROTOCOL.u2f)."""
    state = b"\x01\x00\x00\x00\x05"
    data = hashlib.sha256(b"ssh:").digest() + state + hashlib.sha256(data).digest()
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return join_strings(kind.encode(), private.sign(data)) + state
    numbers = utils.decode_dss_signature(private.sign(data, ec.ECDSA(hashes.SHA256())))
    return (
        join_strings(kind.encode(), join_strings(*(b"\0" + number.to_bytes(32, "big") for number in numbers))) + state
    )


@pytest.mark.parametrize("kind", ["sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"])
def test_an_authority_on_a_token(keys: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    """A certificate signed with a FIDO token is believed, as by `ssh-keygen`, and not with another signature."""
    private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey = ed25519.Ed25519PrivateKey.generate()
    if "ecdsa" in kind:
        private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    authority = join_strings(kind.encode(), *Reader(blob_of(public)).strings()[1:], b"ssh:")
    made = parse(blob_of(certify(*keys, principals="gpu")))
    signed = made.signed.removesuffix(join_strings(made.authority)) + join_strings(authority)
    for content, verdict in ((signed, ""), (signed + b"x", "has a wrong signature")):
        blob = signed + join_strings(token_signature(kind, private, content))
        file = tmp_path / "certificate.pub"
        file.write_text(f"ssh-ed25519-cert-v01@openssh.com {base64.b64encode(blob).decode()}\n")
        shown = subprocess.run(["ssh-keygen", "-L", "-f", str(file)], capture_output=True, text=True)
        assert (shown.returncode == 0 and "Signing CA: " in shown.stdout) is (verdict == "")
        assert parse(blob).authority == authority
        assert find_fault(parse(blob), "gpu", NOW) == verdict
    assert find_fault(parse(signed + join_strings(made.signature)), "gpu", NOW) == "has a wrong signature"
