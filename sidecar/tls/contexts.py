"""From files to SSLContexts. What is wrong with a file is one `TlsFileError`, which names its key."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from sidecar.config.files import read_bounded, reason
from sidecar.errors import SidecarError
from sidecar.tls.validity import earliest_end

if TYPE_CHECKING:
    from sidecar.config.doors import ClientTlsSettings, ServerTlsSettings

__all__ = ["Made", "TlsFileError", "client_context", "server_context"]

MAX_FILE = 4 << 20  # bytes: all authorities of the world have some 250 KB
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_HTTP = ("http/1.1",)


class TlsFileError(SidecarError):
    """A file that cannot be used. key: of `tls`, such as `ca`. problem: what is wrong and what to do."""

    def __init__(self, key: str, file: str, problem: str) -> None:
        super().__init__(f"{file} (tls.{key}): {problem}")
        self.key = key
        self.problem = f"{file}: {problem}"


class Made(NamedTuple):
    """What files have given. expires: when the own certificate does, seconds since 1970; 0 without one."""

    context: ssl.SSLContext
    expires: float


class _Telling(ssl.SSLObject):
    """Leaves the certificate that was refused with the error, which OpenSSL alone knows at that moment.

    `certificate`, as `getpeercert` has it, is not there where this Python gives no way to it.
    """

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            with suppress(Exception):  # not public before Python 3.13
                chain: Any = self._sslobj.get_verified_chain()  # type: ignore[attr-defined]
                error.certificate = chain[0].get_info()  # type: ignore[attr-defined]
            raise


def client_context(settings: ClientTlsSettings, protocol: str) -> Made:
    """For the endpoints of an upstream. protocol: `http`, `redis` or `tcp`. Raises TlsFileError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, settings.min_version)
    context.hostname_checks_common_name = False  # RFC 9525 section 2: names are subject alternative ones
    context.check_hostname = settings.verify and not settings.identity
    if not settings.verify:
        context.verify_mode = ssl.CERT_NONE
    elif settings.ca:
        _trust(context, "ca", settings.ca)
    else:
        _trust_the_system(context)
    expires = _show(context, settings.cert, settings.key)
    alpn = settings.alpn or (_HTTP if protocol == "http" else ())
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return Made(context, expires)


def server_context(settings: ServerTlsSettings, protocol: str) -> Made:
    """For a listener. Raises TlsFileError.

    Session tickets are those of the context: whoever comes back after a renewal does a whole handshake.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, settings.min_version)
    expires = _show(context, settings.cert, settings.key)
    if settings.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, "client_ca", settings.client_ca)
    if protocol == "http":
        context.set_alpn_protocols(list(_HTTP))
    return Made(context, expires)


def _context(side: int, least: str) -> ssl.SSLContext:
    """Not `create_default_context`: that writes down keys where SSLKEYLOGFILE says so."""
    context = ssl.SSLContext(side)
    context.minimum_version = _VERSIONS[least]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # Who is cut off without a close_notify is to learn of it (RFC 8446 section 6.1): a body may be cut short.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    context.sslobject_class = _Telling
    return context


def _read(key: str, file: str) -> bytes:
    try:
        return read_bounded(file, MAX_FILE)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else "is no name of a file"
        raise TlsFileError(key, file, f"{why}; name a file that is there and readable") from None


def _trust(context: ssl.SSLContext, key: str, file: str) -> None:
    content = _read(key, file)
    if b"-----BEGIN " not in content:
        raise TlsFileError(key, file, "holds no certificate in PEM form; name a file of authorities")
    try:
        context.load_verify_locations(file)  # by its name, which lets other threads run: a bundle takes 0.1 s
    except OSError:
        raise TlsFileError(
            key, file, "holds no certificate that can be read; name a file of authorities"
        ) from None


def _trust_the_system(context: ssl.SSLContext) -> None:
    """What `set_default_verify_paths` does, which lets no other thread run meanwhile."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath:  # those that are there
        context.load_verify_locations(paths.cafile, paths.capath)


def _show(context: ssl.SSLContext, cert: str, key: str) -> float:
    """Have `context` show a certificate, which expires at what this gives."""
    if not cert:
        return 0.0
    content, private = _read("cert", cert), _read("key", key)
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise TlsFileError("cert", cert, "holds no certificate in PEM form; name the file with the chain")
    if b"PRIVATE KEY-----" not in private:
        raise TlsFileError("key", key, "holds no private key in PEM form; name the certificate's key")
    if b"ENCRYPTED" in private:  # PKCS #8 and RFC 1421 section 4.6.1.1
        problem = "is encrypted, and there is nobody to ask for its passphrase; store it without one"
        raise TlsFileError("key", key, problem)
    try:
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFileError("key", key, f"does not belong to the certificate in {cert}") from None
        what = (error.reason or "cannot be read").lower().replace("_", " ")
        problem = f"cannot be used with {key} ({what}); have both issued anew"
        raise TlsFileError("cert", cert, problem) from None
    except OSError as error:  # it has gone meanwhile
        raise TlsFileError("cert", cert, reason(error)) from None
    return earliest_end(content)
