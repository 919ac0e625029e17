"""Secrets, which are in no setting: from an environment variable or a file, read anew for each use.

So one may be changed while the process runs, as a mounted Kubernetes Secret is.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from sidecar.errors import SidecarError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_SECRET", "SecretError", "read_secret", "read_token"]

MAX_SECRET = 4096  # bytes of a file: Kubernetes' tokens have about one KiB; what is longer is another file


class SecretError(SidecarError):
    """A secret is configured and cannot be had. Its text repeats nothing of it."""


def read_secret(what: str, variable: str, file: str, environ: Mapping[str, str]) -> bytes:
    """The secret that `what` (such as `password`) keeps in a variable or a file, without a line break at its end.

    Empty where neither is configured. Raises SecretError.
    """
    if variable:
        secret = environ.get(variable, "").encode("utf-8", "surrogateescape")
        if not secret:
            raise SecretError(f"the variable {variable} ({what}_env) is not set")
        return secret
    if not file:
        return b""
    try:
        secret = _first_bytes(what, file).rstrip(b"\r\n")
    except OSError as error:
        raise SecretError(f"{file} ({what}_file): {(error.strerror or str(error)).lower()}") from None
    if not 0 < len(secret) <= MAX_SECRET:
        raise SecretError(f"{file} ({what}_file) is empty or longer than {MAX_SECRET} bytes")
    return secret


def read_token(what: str, variable: str, file: str, environ: Mapping[str, str]) -> bytes:
    """The same for what is sent in a field (RFC 9110 section 5.5), where nobody could send another: SecretError too."""
    token = read_secret(what, variable, file, environ)
    if not re.fullmatch(rb"[!-~\x80-\xff]*", token):
        where = variable or file
        raise SecretError(f"{where} holds a space or a control character, which is no part of a token")
    return token


def _first_bytes(what: str, file: str) -> bytes:
    """As many as a secret may have, and one more. Raises OSError, SecretError.

    A pipe that nobody writes to, or a terminal, would hold up the whole process.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SecretError(f"{file} ({what}_file) is no regular file")
        return os.read(descriptor, MAX_SECRET + 1)
    finally:
        os.close(descriptor)
