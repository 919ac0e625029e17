"""A certificate authority of a test's own, by openssl."""

import ssl
import subprocess
from pathlib import Path

from support.processes import find_program

__all__ = ["Authority"]


class Authority:
    """It signs what it is asked to. ca: the file to trust. Needs the program `openssl`."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._name = name
        self.ca = directory / f"{name}.pem"
        self._make(name, "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign")

    def issue(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """Files of a certificate for these names and addresses, and of its key."""
        places = ",".join(f"{'IP' if host[-1].isdigit() or ':' in host else 'DNS'}:{host}" for host in hosts)
        signer = ("-CA", str(self.ca), "-CAkey", str(self._directory / f"{self._name}.key"))
        self._make(
            name, "basicConstraints=CA:FALSE", f"subjectAltName={places or 'DNS:' + name}", signer=signer
        )
        return self._directory / f"{name}.pem", self._directory / f"{name}.key"

    def server(self, name: str, *hosts: str, clients: bool = False) -> ssl.SSLContext:
        """What a server of these names shows. clients: it asks them for a certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(name, *hosts))
        if clients:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _make(self, name: str, *extensions: str, signer: tuple[str, ...] = ()) -> None:
        openssl = find_program("openssl")
        assert openssl, "not installed: openssl"
        command = [
            openssl,
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-noenc",
        ]
        command += ["-days", "2", "-subj", f"/CN={name}", *signer]
        for extension in extensions:
            command += ["-addext", extension]
        command += ["-out", f"{self._directory}/{name}.pem", "-keyout", f"{self._directory}/{name}.key"]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
