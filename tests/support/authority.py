"""A certificate authority of a test's own, made with openssl."""

import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

__all__ = ["Authority", "Certificate"]


class Certificate(NamedTuple):
    """Files in PEM."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates in `directory`. ca: its own, which is to be trusted."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.ca = directory / f"{name}.crt"
        self._key = directory / f"{name}.key"
        self._openssl(
            *("req", "-x509", "-subj", f"/CN={name}", "-out", self.ca, "-keyout", self._key),
            *("-addext", "keyUsage=critical,keyCertSign"),
            *self._usual(),
        )

    def issue(self, name: str, *names: str) -> Certificate:
        """A certificate with its key, for a server of those names (`DNS:api.example`, `IP:127.0.0.1`) or a client."""
        made = Certificate(self._directory / f"{name}.crt", self._directory / f"{name}.key")
        self._openssl(
            *("req", "-x509", "-subj", f"/CN={name}", "-CA", self.ca, "-CAkey", self._key),
            *("-out", made.cert, "-keyout", made.key, "-addext", "basicConstraints=critical,CA:FALSE"),
            *(("-addext", f"subjectAltName={','.join(names)}") if names else ()),
            *self._usual(),
        )
        return made

    def server_context(self, certificate: Certificate, *, ask_clients: bool = False) -> ssl.SSLContext:
        """For a server that shows `certificate`, and asks clients for one of this authority's if it is to."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.cert, certificate.key)
        if ask_clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca)
        return context

    def server(self, name: str, *hosts: str, clients: bool = False) -> ssl.SSLContext:
        """For a server of these hosts, with a certificate that is issued for it. clients: as `ask_clients`."""
        names = [f"{'IP' if host[-1].isdigit() or ':' in host else 'DNS'}:{host}" for host in hosts]
        return self.server_context(self.issue(name, *names), ask_clients=clients)

    def _usual(self) -> tuple[str, ...]:
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")

    def _openssl(self, *arguments: str | Path) -> None:
        ended = subprocess.run(
            ["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False
        )
        assert ended.returncode == 0, ended.stderr
