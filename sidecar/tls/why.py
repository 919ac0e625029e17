"""What a failed handshake means: which outcome it is, what has happened in words, and what to do about it."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, NamedTuple

from sidecar.config.findings import escaped
from sidecar.model import Outcome
from sidecar.tls.names import IdentityError, names_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TLS_OUTCOMES", "Why", "why"]

TLS_OUTCOMES = (Outcome.TLS_EXPIRED, Outcome.TLS_WRONG_HOST, Outcome.TLS_UNKNOWN_CA, Outcome.TLS_FAILED)
SHOWN = 3  # names of a certificate that a message repeats

# OpenSSL's X509_V_ERR_*: https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/#error-codes
_EXPIRED = frozenset((9, 10, 13, 14))  # not yet valid, expired, and dates that cannot be read
_WRONG_HOST = frozenset((62, 64))  # of a name, of an address
# No issuer, self-signed (alone, in the chain), no issuer here, the leaf's issuer is not here, not trusted; and a bad
# signature, which an authority of the same name with another key gives.
_UNKNOWN_CA = frozenset((2, 7, 18, 19, 20, 21, 27))

_NOT_TLS = (
    "HTTP_REQUEST",
    "HTTPS_PROXY_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "WRONG_VERSION_NUMBER",
)
_VERSION = (
    "NO_PROTOCOLS_AVAILABLE",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "UNKNOWN_PROTOCOL",
    "UNSUPPORTED_PROTOCOL",
)
# Alerts by which somebody refuses a certificate, or misses one (RFC 8446 section 6.2).
_REFUSED = (
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "TLSV1_ALERT_ACCESS_DENIED",
    "TLSV1_ALERT_UNKNOWN_CA",
)
_MISSED = "TLSV13_ALERT_CERTIFICATE_REQUIRED"


class Why(NamedTuple):
    """outcome: one of `TLS_OUTCOMES`. said: what the other side did, one line. advice: what to do."""

    outcome: Outcome
    said: str
    advice: str

    def __str__(self) -> str:
        return f"{self.said}; {self.advice}"


def why(error: Exception, expected: str, *, client: bool = False) -> Why:
    """What `error` means. expected: the name that was asked for. client: the other side is one, not an endpoint."""
    if isinstance(error, IdentityError):
        said = f"{error.strerror}{_described(error.certificate)}"
        return Why(Outcome.TLS_WRONG_HOST, said, "name it in tls.identity, if it may be there")
    if isinstance(error, ssl.SSLCertVerificationError):
        return _unverified(error, expected, client=client)
    if isinstance(error, TimeoutError):
        advice = (
            "look at the network between, or raise sidecar.head_timeout" if client else "look into its log"
        )
        return Why(Outcome.TLS_FAILED, "it did not finish the handshake in time", advice)
    if isinstance(error, UnicodeError):  # of IDNA, see RFC 5890 section 2.3.1
        said = f"no server can be asked for by the name {escaped(expected[:100])}"
        return Why(
            Outcome.TLS_FAILED, said, "set tls.server_name to one whose labels have 1 to 63 characters"
        )
    reason = getattr(error, "reason", None) or ""
    said, advice = _unfinished(reason, client=client)
    if not said and isinstance(error, ssl.SSLError) and reason and not isinstance(error, ssl.SSLEOFError):
        said, advice = (
            f"the handshake failed: {reason.lower().replace('_', ' ')}",
            "compare what both sides allow",
        )
    elif not said:
        said, advice = "it closed the connection during the handshake", "look into its log"
    return Why(Outcome.TLS_FAILED, said, advice)


def _unverified(error: ssl.SSLCertVerificationError, expected: str, *, client: bool) -> Why:
    code = error.verify_code
    certificate: Mapping[str, Any] = getattr(error, "certificate", {})
    about = _described(certificate)
    if code in _EXPIRED:
        early = code in (9, 13)
        when = certificate.get("notBefore" if early else "notAfter", "")
        what = "its certificate is not valid yet" if early else "its certificate has expired"
        said = f"{what}{f' ({when})' if when else ''}{about}"
        return Why(Outcome.TLS_EXPIRED, said, "have it renewed, or look at both clocks")
    if code in _WRONG_HOST:
        said = f"its certificate is not of {expected}{about}"
        advice = "set tls.server_name to a name that it has, or have one issued for this one"
        return Why(Outcome.TLS_WRONG_HOST, said, advice)
    if code in _UNKNOWN_CA:
        by = _issuer(certificate)
        said = f"nobody who is trusted has signed its certificate ({error.verify_message}{by}){about}"
        key = "client_ca" if client else "ca"
        return Why(Outcome.TLS_UNKNOWN_CA, said, f"set tls.{key} to a file with its authority")
    said = f"its certificate cannot be used ({error.verify_message}){about}"
    return Why(Outcome.TLS_FAILED, said, "have another one issued")


def _unfinished(reason: str, *, client: bool) -> tuple[str, str]:
    """A handshake that no certificate of the other side's has ended; nothing for a reason that says too little."""
    if reason in _NOT_TLS:
        advice = "speak TLS to this port" if client else "name the port that does, or a scheme without TLS"
        return "it speaks no TLS", advice
    if reason in _VERSION:
        return (
            "it speaks no version of TLS that is allowed",
            "update it, or lower tls.min_version if it is 1.3",
        )
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "it has shown no certificate", "give it one that tls.client_ca has signed"
    if reason == _MISSED or (reason == "SSLV3_ALERT_HANDSHAKE_FAILURE" and not client):
        return (
            "it refused, as servers do that want a certificate",
            "set tls.cert and tls.key to one that it takes",
        )
    if reason in _REFUSED:
        words = reason.partition("_ALERT_")[2].lower().replace("_", " ")
        return f"it refuses the certificate that it was shown ({words})", "renew it, or have it trusted there"
    if reason in ("TLSV1_UNRECOGNIZED_NAME", "TLSV1_ALERT_UNRECOGNIZED_NAME"):
        return "it knows nothing of the name that was asked for", "set tls.server_name to one that it has"
    return "", ""


def _described(certificate: Mapping[str, Any]) -> str:
    """Whose it is and until when, as an addition to a sentence."""
    names = names_of(certificate)
    if not certificate:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    whose = escaped(", ".join(name[:100] for name in names[:SHOWN])) or "nobody by name"
    return f"; it is of {whose}{more}, until {certificate.get('notAfter', 'a date unknown')}"


def _issuer(certificate: Mapping[str, Any]) -> str:
    for part in certificate.get("issuer", ()):
        for key, value in part:
            if key in ("commonName", "organizationName"):
                return f", issuer {escaped(value[:100])}"
    return ""
