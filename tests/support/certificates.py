"""Files of certificates and keys as somebody would mount them: authorities, those that they sign, and their faults."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "Pair"]

NOW = datetime.now(UTC)


class Pair(NamedTuple):
    """Paths of a certificate and its key."""

    cert: str
    key: str

    def server(self, client_ca: str = "", highest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """A server's context."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        if client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
        if highest is not None:
            context.maximum_version = highest
        return context


def _name(text: str) -> x509.GeneralName:
    if "://" in text:
        return x509.UniformResourceIdentifier(text)
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


class Authority:
    """One that signs. ca: the path of its own certificate, in `directory`."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {name}")])
        builder = self._builder(self._name, self._key, 30).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.ca = str(directory / f"{name}.pem")
        _write(self.ca, builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: float, since: float = -1.0
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + timedelta(days=since))
            .not_valid_after(NOW + timedelta(days=days))
        )

    def issue(
        self,
        *names: str,
        file: str = "cert",
        days: float = 30.0,
        since: float = -1.0,
        password: bytes | None = None,
    ) -> Pair:
        """A certificate of `names` for so many days. Files of the same name are replaced, the key's first."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([]), key, days, since).add_extension(
            x509.SubjectAlternativeName([_name(name) for name in names]), critical=True
        )
        pair = Pair(str(self._directory / f"{file}.pem"), str(self._directory / f"{file}.key"))
        encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
        _write(pair.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        _write(pair.cert, builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return pair


def _write(path: str, content: bytes) -> None:
    """As whoever renews files does: a new file in the place of the old."""
    Path(f"{path}.new").write_bytes(content)
    Path(f"{path}.new").replace(path)
