"""Where the Kubernetes API server is, and what it is to be shown: in a pod, by a kubeconfig, or as configured.

What the configuration says (`hosts`, `token_file` or `token_env`, `tls`) goes before what is found; the rest is taken
from the first of: `kubeconfig`, the first file of $KUBECONFIG that exists, the pod's service account, and where
`hosts` names no server ~/.kube/config. Several kubeconfigs are not merged.

In a pod: https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/. The file:
https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/.
"""

from __future__ import annotations

import os
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sidecar.config.addresses import parse_authority, parse_host
from sidecar.config.findings import escaped, shown
from sidecar.config.secrets import SecretError, read_secret
from sidecar.errors import SourceError
from sidecar.registry.sources.http import base_urls
from sidecar.registry.sources.kubeconfig_file import KubeconfigFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sidecar.config.settings import RegistrySettings, TlsSettings

__all__ = ["ACCOUNT", "Access", "Token", "find_access"]

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SECURE_PORT = 6443  # of an API server itself; its Service in the cluster has 443
PLAIN_PORT = 8001  # `kubectl proxy`
MAX_PEM = 1024 * 1024  # bytes: a file of all of the world's authorities has some 250 KiB
MAX_NAMESPACE = 64  # bytes, one more than a name has
# What a bearer token is made of, RFC 6750 section 2.1: anything else would not stay in its header.
_TOKEN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=")


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token, or the variable or file that it is read from each time: a pod's is another one every hour."""

    text: str = field(default="", repr=False)
    variable: str = ""
    file: str = ""
    advice: str = ""  # what to look into where it cannot be had

    @property
    def lasts(self) -> bool:
        """Reading it again would give the same."""
        return not (self.variable or self.file)

    @property
    def origin(self) -> str:
        """Where it is from, for messages; empty where there is none."""
        return self.file or self.variable or ("the kubeconfig" if self.text else "")

    def read(self, environ: Mapping[str, str]) -> str:
        """The token as it is now; empty without one. Raises SourceError, which does not show it."""
        if self.lasts:
            return self.text
        try:
            text = read_secret("token", self.variable, self.file, environ).strip()
        except SecretError as error:
            raise SourceError(f"{error}{self.advice}") from None
        if not _TOKEN.issuperset(text):
            raise SourceError(f"{self.origin} holds characters that no token has; look into it")
        return text.decode("ascii")


@dataclass(frozen=True, slots=True)
class Access:
    """How the API server is reached. urls: of each member, without a slash at its end; at least one.

    namespace: the pod's or the context's own; empty where neither says. tls: None for http. server_name: in place of
    the host's; empty for that.
    """

    urls: tuple[str, ...]
    namespace: str
    token: Token
    tls: ssl.SSLContext | None
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class _Pem:
    """Certificates or a key: what they are, or the file that holds them. said: what they are called in messages."""

    said: str = ""
    file: str = ""
    data: bytes = field(default=b"", repr=False)

    def __bool__(self) -> bool:
        return bool(self.file or self.data)

    def read(self) -> bytes:
        """Raises SourceError."""
        return self.data or _read(Path(self.file), MAX_PEM, self.said)


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of the API server before the configuration is asked. url: empty where nothing is."""

    url: str = ""
    namespace: str = ""
    token: Token = field(default_factory=Token)
    ca: _Pem = field(default_factory=_Pem)
    cert: _Pem = field(default_factory=_Pem)
    key: _Pem = field(default_factory=_Pem)
    server_name: str = ""
    verify: bool = True


def find_access(settings: RegistrySettings, environ: Mapping[str, str], account: Path = ACCOUNT) -> Access:
    """How the API server is to be reached now. account: the directory of a pod's service account.

    Reads files, which may change: to be called for each stream. Raises SourceError.
    """
    found = _found(settings, environ, account)
    secure = settings.tls.enabled or found.url.startswith("https:")
    if settings.hosts:
        urls = _member_urls(settings, secure)
    elif found.url:
        urls = (found.url,)
    else:
        raise SourceError(
            f"registry {shown(settings.name)}: no API server is known: this is no pod"
            " (KUBERNETES_SERVICE_HOST is not set) and there is no kubeconfig; name one under `kubeconfig`,"
            " or servers under `hosts`"
        )
    found = _with_tls(found, settings.tls)
    if settings.token_env or settings.token_file:
        found = replace(found, token=Token("", settings.token_env, settings.token_file))
    tls = _context(found) if urls[0].startswith("https:") else None
    return Access(urls, found.namespace, found.token, tls, found.server_name)


def _found(settings: RegistrySettings, environ: Mapping[str, str], account: Path) -> _Found:
    file = _kubeconfig(settings, environ)
    if not file and environ.get("KUBERNETES_SERVICE_HOST"):
        return _in_cluster(environ, account)
    if not file and not settings.hosts and environ.get("HOME"):
        usual = Path(environ["HOME"], ".kube", "config")
        file = str(usual) if usual.is_file() else ""
    return _by_kubeconfig(file, settings) if file else _Found()


def _kubeconfig(settings: RegistrySettings, environ: Mapping[str, str]) -> str:
    """The file that is named; empty where none is, or none of several exists."""
    if settings.kubeconfig:
        return settings.kubeconfig
    named = [name for name in environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    return next((name for name in named if Path(name).is_file()), "")


def _in_cluster(environ: Mapping[str, str], account: Path) -> _Found:
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT") or "443"
    try:
        parse_authority(f"{_bracketed(parse_host(host))}:{port}")
    except ValueError as error:
        raise SourceError(
            f"KUBERNETES_SERVICE_HOST and _PORT: {shown(f'{host}:{port}')} {error};"
            " Kubernetes sets them in each pod, do not set them yourself"
        ) from None
    advice = "; a pod has a token unless automountServiceAccountToken is false"
    token = Token(file=str(account / "token"), advice=advice)
    ca = _Pem("the service account's CA", str(account / "ca.crt"))
    return _Found(f"https://{_bracketed(host)}:{port}", _namespace(account / "namespace"), token, ca)


def _namespace(file: Path) -> str:
    """The pod's own; empty where nobody says."""
    if not file.is_file():
        return ""
    return _read(file, MAX_NAMESPACE, "the service account's namespace").decode("ascii", "replace").strip()


def _by_kubeconfig(name: str, settings: RegistrySettings) -> _Found:
    """What a kubeconfig says of a context. Credentials that cannot be used are refused unless others are configured."""
    file = KubeconfigFile(name)
    context = file.context(settings.context)
    cluster = file.entry("clusters", file.text((*context, "cluster")), (*context, "cluster"))
    server = (*cluster, "server")
    url = file.text(server).rstrip("/")
    if not _is_url(url):
        # Not shown: a password may be in it.
        raise file.error(server, "is no URL of an API server, such as https://10.0.0.1:6443")
    if file.text((*cluster, "proxy-url")) and not settings.hosts:
        raise file.error((*cluster, "proxy-url"), "proxies are not supported; remove it, or name `hosts`")
    found = _Found(
        url,
        file.text((*context, "namespace")),
        ca=_pem(file, cluster, "certificate-authority"),
        server_name=file.text((*cluster, "tls-server-name")),
        verify=not file.flag((*cluster, "insecure-skip-tls-verify")),
    )
    user_name = file.text((*context, "user"))
    if settings.token_env or settings.token_file or not user_name:
        return found
    user = file.entry("users", user_name, (*context, "user"))
    if not settings.tls.cert:
        file.refuse_unsupported(user)
    return replace(
        found,
        # As client-go has it: what a token file holds is newer than the token that stands beside it.
        token=Token(file=file.path((*user, "tokenFile")))
        if file.text((*user, "tokenFile"))
        else _token(file, user),
        cert=_pem(file, user, "client-certificate"),
        key=_pem(file, user, "client-key"),
    )


def _token(file: KubeconfigFile, user: tuple[str | int, ...]) -> Token:
    text = file.text((*user, "token")).strip()
    if not _TOKEN.issuperset(text.encode("utf-8", "replace")):
        raise file.error((*user, "token"), "holds characters that no token has")
    return Token(text)


def _pem(file: KubeconfigFile, entry: tuple[str | int, ...], key: str) -> _Pem:
    """What `key`-data holds, which goes before the file that `key` names."""
    data = file.data((*entry, f"{key}-data"))
    if data:
        return _Pem(file.where((*entry, f"{key}-data")), data=data)
    return _Pem(file.where((*entry, key)), file.path((*entry, key)))


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    plain = not (parts.query or parts.fragment or parts.username or parts.password)
    return parts.scheme in ("http", "https") and bool(host) and plain and url.isprintable() and " " not in url


def _member_urls(settings: RegistrySettings, secure: bool) -> tuple[str, ...]:
    """Of `hosts`, over TLS also where that is only known from what was found."""
    tls = replace(settings.tls, enabled=secure)
    return tuple(base_urls(replace(settings, tls=tls), SECURE_PORT if secure else PLAIN_PORT))


def _with_tls(found: _Found, tls: TlsSettings) -> _Found:
    """With what the configuration says of TLS in place of what was found."""
    if tls.ca:
        found = replace(found, ca=_Pem("tls.ca", tls.ca))
    if tls.cert:
        found = replace(
            found, cert=_Pem("tls.cert", tls.cert), key=_Pem("tls.key", tls.key) if tls.key else _Pem()
        )
    return replace(
        found, server_name=tls.server_name or found.server_name, verify=found.verify and tls.verify
    )


def _context(found: _Found) -> ssl.SSLContext:
    """What a cluster's own CA signs is all that is trusted; without one, what the system trusts. Raises SourceError."""
    try:
        ca = found.ca.read().decode("ascii", "replace") if found.ca else None
        context = ssl.create_default_context(cadata=ca)
    except (OSError, ValueError) as error:
        raise SourceError(f"{_said(found.ca)}: {_words(error)}; it has to be a PEM certificate") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 asks for fields that the CAs of older clusters lack (such as an Authority Key Identifier).
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not found.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if found.cert:
        chain = found.cert.read() + b"\n" + (found.key.read() if found.key else b"")
        try:
            with _without_a_name(chain) as path:
                # The empty password is for keys that have one: without it OpenSSL would ask at the terminal.
                context.load_cert_chain(path, password="")
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{_said(found.cert)}: {_words(error)}; it has to be a PEM certificate with its key, unencrypted"
            ) from None
    return context


@contextmanager
def _without_a_name(content: bytes) -> Iterator[str]:
    """A path at which OpenSSL, which takes nothing else, finds `content`: in memory, as a key has no place on a disk.

    There may be no directory to write to either: containers are often read-only.
    """
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _read(file: Path, most: int, said: str) -> bytes:
    """A small file that does not hold up the process, as a pipe would. Raises SourceError."""
    try:
        if not file.is_file() and file.exists():
            raise SourceError(f"{escaped(str(file))} ({said}) is no regular file")
        with file.open("rb") as opened:
            content = opened.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise SourceError(f"{escaped(str(file))} ({said}): {_words(error)}") from None
    if len(content) > most:
        raise SourceError(f"{escaped(str(file))} ({said}) is longer than {most} bytes; is it another file?")
    return content


def _said(pem: _Pem) -> str:
    return f"{escaped(pem.file)} ({pem.said})" if pem.file else pem.said


def _words(error: Exception) -> str:
    """What the system says, in one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join((said or type(error).__name__).split()).lower()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
