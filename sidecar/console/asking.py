"""Asking a running sidecar's admin address, for the commands that show what it says."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

from sidecar.config.addresses import parse_authority
from sidecar.config.findings import escaped
from sidecar.config.secrets import read_token
from sidecar.errors import SidecarError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CONTROL",
    "VARIABLE",
    "AdminAddress",
    "NoAnswerError",
    "RefusedError",
    "ask",
    "ask_about",
    "no_sidecar",
]

TIMEOUT = 2.0  # seconds: the admin address is on this machine and answers from memory
CONTROL = {"X-Sidecar-Control": "1"}  # what a request that changes something has to carry
MAX_ANSWER = 64 * 1024 * 1024  # bytes: the bounds of the configuration allow no longer one
VARIABLE: Final = "SIDECAR_ADMIN_TOKEN"  # where a token is, if no file is named


class NoAnswerError(SidecarError):
    """Nothing at the admin address answers as a sidecar does."""


class RefusedError(NoAnswerError):
    """A sidecar is there, and does not do what it was asked for."""


class AdminAddress(str):
    """An admin address, host:port, to whoever reads it; and the token that is sent there, empty for none."""

    __slots__ = ("token",)

    token: bytes

    def __new__(cls, address: str, token: bytes = b"") -> Self:
        made = super().__new__(cls, address)
        made.token = token
        return made

    @classmethod
    def of(cls, address: str, file: str | None, environ: Mapping[str, str]) -> AdminAddress:
        """With the token that `file` holds, or else the variable `VARIABLE`.

        Raises `SecretError` where it cannot be read, or cannot be sent (RFC 9110 section 5.5).
        """
        variable = VARIABLE if not file and environ.get(VARIABLE) else ""
        return cls(address, read_token("admin_token", variable, file or "", environ))


def ask(
    address: str,
    path: str,
    method: str = "GET",
    fields: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> tuple[int, dict[str, Any]]:
    """The status and JSON object that `address` (host:port, IPv6 in brackets) answers a request without body.

    timeout: seconds without a word from it, `TIMEOUT` unless it is given. An `AdminAddress` has its token sent there.
    Raises `ValueError` when `address` is no such thing, `NoAnswerError` when nothing answers, or with no object,
    `RefusedError` when the sidecar says that it does not let this one in, or do that.
    """
    timeout = TIMEOUT if timeout is None else timeout
    host, port = _split(address)
    sent: dict[str, str | bytes] = {"Accept": "application/json", **(fields or {})}
    token = address.token if isinstance(address, AdminAddress) else b""
    if token:
        sent["Authorization"] = b"Bearer " + token
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request(method, path, headers=sent)
        response = connection.getresponse()
        body = response.read(MAX_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(
            f"nothing answers at {address} ({_why(error, timeout)}); is `sidecar run` running, "
            "or is sidecar.admin another address? Give --admin HOST:PORT"
        ) from error
    finally:
        connection.close()
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise no_sidecar(address, response.status)
    said = document.get("error")
    if isinstance(said, str):
        document["error"] = said = escaped(said)  # a terminal does what it is told, whoever answers there
        if response.status in (401, 403, 503):
            raise RefusedError(_refused(address, response.status, said, token))
    return response.status, document


def ask_about(
    address: str,
    path: str,
    key: str,
    errors: TextIO,
    method: str = "GET",
    fields: Mapping[str, str] | None = None,
) -> dict[str, Any] | int:
    """The answer about one upstream, an object whose `key` is a list; or else the exit code, and a line on `errors`.

    1: nobody is called so, or no sidecar answers. 2: `address` is none.
    """
    try:
        status, answer = ask(address, path, method, fields)
        found = isinstance(answer.get(key), list)
        if status == 404 and not found:
            print(f"sidecar: {answer.get('error')}", file=errors)
            return 1
        if status != 200 or not found:
            raise no_sidecar(address, status)
    except NoAnswerError as error:
        print(f"sidecar: {error}", file=errors)
        return 1
    except ValueError as error:
        print(f"sidecar: {error}", file=errors)
        return 2
    return answer


def no_sidecar(address: str, status: int) -> NoAnswerError:
    """What to say of an answer that no sidecar gives."""
    return NoAnswerError(
        f"what answers at {address} is no sidecar's admin address (status {status}); give --admin HOST:PORT"
    )


def _refused(address: str, status: int, error: str, token: bytes) -> str:
    if status != 401:
        return f"the sidecar at {address} refuses: {error}"
    if token:
        return (
            f"the sidecar at {address} has another token; see its sidecar.admin_token_file or admin_token_env"
        )
    return f"the sidecar at {address} asks for its token; give --admin-token-file FILE, or set {VARIABLE}"


def _split(address: str) -> tuple[str, int]:
    try:
        return parse_authority(address)
    except ValueError:
        said = f"{address!r} is no admin address; give --admin HOST:PORT, such as 127.0.0.1:9901"
        raise ValueError(said) from None


def _why(error: Exception, timeout: float) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
