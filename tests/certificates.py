"""A CA, a server certificate for this machine and client certificates, as files."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

PASSWORD = b"geheim"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """A folder with ca.pem, client.pem, client.key, other.key, and unusable files."""

    folder: Path
    authority: trustme.CA

    def path(self, name: str) -> str:
        """The path of the file with this name."""
        return str(self.folder / name)

    def server(self, *, wants_client: bool = False) -> ssl.SSLContext:
        """The TLS context of a server with its certificate; it may require a client certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1").configure_cert(context)
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self.authority.configure_trust(context)
        return context


def make_certificates(folder: Path) -> Certificates:
    """Make all files in this existing folder."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("client", "other"):
        made = authority.issue_cert(f"{name}@example.org")
        made.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        made.private_key_pem.write_to_path(folder / f"{name}.key")
    key = (folder / "client.key").read_bytes()
    (folder / "both.pem").write_bytes((folder / "client.pem").read_bytes() + key)
    locked = load_pem_private_key(key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD)
    )
    (folder / "locked.key").write_bytes(locked)
    (folder / "note.txt").write_text("no certificate\n")
    (folder / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return Certificates(folder=folder, authority=authority)
