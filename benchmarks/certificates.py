"""A certificate for the scenarios with TLS, made on the spot: nothing of it outlives the run."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from programs import find

__all__ = ["NAME", "Certificate", "make_certificate"]

NAME = "service.example"  # whom it is of


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM. ca: to trust; cert, key: to show; both: these two in one file, as HAProxy reads them."""

    ca: Path
    cert: Path
    key: Path
    both: Path


def make_certificate(directory: Path) -> Certificate | None:
    """Of `NAME`, for ECDSA on P-256 as most are today, and signed by an authority; None without openssl."""
    openssl = find("openssl")
    if openssl is None:
        return None
    made = Certificate(*(directory / f"tls-{name}.pem" for name in ("ca", "cert", "key", "both")))
    authority = directory / "tls-ca-key.pem"
    usual = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for arguments in (
        [
            *("-subj", "/CN=ca", "-out", str(made.ca), "-keyout", str(authority)),
            *("-addext", "keyUsage=critical,keyCertSign"),
        ],
        [
            *("-subj", f"/CN={NAME}", "-CA", str(made.ca), "-CAkey", str(authority)),
            *("-out", str(made.cert), "-keyout", str(made.key)),
            *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"subjectAltName=DNS:{NAME}"),
        ],
    ):
        done = subprocess.run(
            [openssl, "req", "-x509", *arguments, *usual], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"openssl made no certificate: {done.stderr[-200:].strip()}")
    made.both.write_bytes(made.cert.read_bytes() + made.key.read_bytes())
    return made
