"""The types of keys and certificates that OpenSSH knows (its PROTOCOL.certkeys and PROTOCOL.u2f): pure."""

from __future__ import annotations

CERTIFICATE = "-cert-v01@openssh.com"
"""End of the names of certificate types and algorithms."""
KEY_FIELDS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
"""How many strings hold a key of each type; they follow the type's name, in a certificate after a nonce."""
USER_CERTIFICATE, HOST_CERTIFICATE = 1, 2
"""The kinds of certificates, as a certificate names its own."""
