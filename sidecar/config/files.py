"""Regular files, and nothing else that may stand under a name, read as far as a bound."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PART", "open_regular", "read_bounded", "reason"]

PART = 1 << 20  # bytes of one read


@contextmanager
def open_regular(path: str) -> Iterator[tuple[int, os.stat_result]]:
    """A file's descriptor, to read from, and what it is. Raises OSError, also where it is no regular file.

    A pipe that nobody writes to, or a terminal, would hold up whoever opens it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", path)
        yield descriptor, found
    finally:
        os.close(descriptor)


def read_bounded(path: str, most: int) -> bytes:
    """The content of a file. Raises OSError, which is EFBIG where it has more than `most` bytes."""
    content = bytearray()
    with open_regular(path) as (descriptor, _):
        while len(content) <= most and (part := os.read(descriptor, min(PART, most + 1 - len(content)))):
            content += part
    if len(content) > most:
        raise OSError(errno.EFBIG, f"is larger than {most} bytes", path)
    return bytes(content)


def reason(error: OSError) -> str:
    """Why, in a few words without the path, which the message that they go into has already."""
    return (error.strerror or str(error) or type(error).__name__).lower()
