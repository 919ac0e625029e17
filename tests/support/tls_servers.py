"""Real servers that speak TLS, with certificates of the test's own."""

from collections.abc import Iterable
from pathlib import Path

from support.certificates import Pair
from support.servers import Nginx, Redis

__all__ = ["TlsNginx", "TlsRedis"]


class TlsNginx(Nginx):
    """nginx whose every name has the certificate `pair`. client_ca: clients have to show one that it has signed.

    versions: as `ssl_protocols` has them. Resumption is off: each connection is a whole handshake.
    """

    def __init__(
        self,
        directory: Path,
        *names: str,
        pair: Pair,
        client_ca: str = "",
        versions: str = "TLSv1.2 TLSv1.3",
        ports: Iterable[int] = (),
    ) -> None:
        super().__init__(directory, *names, ports=ports)
        self.pair = pair
        self.client_ca = client_ca
        self.versions = versions

    def block(self, name: str, port: int) -> str:
        """As without TLS, with what TLS adds."""
        verified = f"ssl_client_certificate {self.client_ca}; ssl_verify_client on;" if self.client_ca else ""
        tls = f"""listen 127.0.0.1:{port} ssl backlog=2048;
    ssl_certificate {self.pair.cert}; ssl_certificate_key {self.pair.key}; ssl_protocols {self.versions};
    ssl_session_cache off; ssl_session_tickets off; {verified}
    location = /name {{ return 200 "$ssl_server_name $ssl_client_serial\\n"; }}"""
        return super().block(name, port).replace(f"listen 127.0.0.1:{port} backlog=2048;", tls)


class TlsRedis(Redis):
    """A redis-server over TLS alone."""

    def __init__(self, directory: Path, pair: Pair, ca: str, port: int = 0) -> None:
        super().__init__(directory, port)
        self.pair = pair
        self.ca = ca

    def command(self) -> list[str | Path]:
        found = super().command()
        at = found.index("--port")
        found[at + 1] = "0"
        options = {
            "tls-port": self.port,
            "tls-cert-file": self.pair.cert,
            "tls-key-file": self.pair.key,
            "tls-ca-cert-file": self.ca,
            "tls-auth-clients": "no",
        }
        return [*found, *(str(part) for name, value in options.items() for part in (f"--{name}", value))]
