"""What is told of one section."""

from __future__ import annotations

from sidecar.config.record import Record

__all__ = ["About"]


class About(Record):
    """One section of the file.

    title: its heading. text: what it is for. keys: a sentence for each key; where ` | ` is in it, what follows is the
    default, which the settings have not or not alone. example: a whole file that uses it.
    """

    title: str
    text: str
    keys: dict[str, str]
    example: str = ""
