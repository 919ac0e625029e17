"""Which of the two formats a scraper gets, by its Accept field (RFC 9110 section 12.5.1)."""

from __future__ import annotations

from sidecar.observe.exposition import CLASSIC, OPENMETRICS, Format

__all__ = ["chosen_format"]

# What each format may be asked for by, the most particular first (RFC 9110 section 12.5.1): its type with a version,
# the type alone, any of the kind, anything. Prometheus asks for `application/openmetrics-text;version=1.0.0` among
# others, with and without versions that there are none of here.
_RANGES = {
    OPENMETRICS: ("application/openmetrics-text", ("1.0.0",), "application/*"),
    CLASSIC: ("text/plain", ("0.0.4",), "text/*"),
}


def chosen_format(accept: str) -> Format:
    """The format that `accept` likes best; the classic one of two alike, or of none, and where nothing is said."""
    ranges = [_parsed(one) for one in accept.split(",")]
    # OpenMetrics is for who names it: `*/*` is what browsers and curl send, and they are to read plain text.
    openmetrics = _quality(ranges, OPENMETRICS)
    classic = _quality(ranges, CLASSIC)
    named = any(kind == _RANGES[OPENMETRICS][0] for kind, _, _ in ranges)
    return OPENMETRICS if named and openmetrics > classic else CLASSIC


def _quality(ranges: list[tuple[str, str, float]], form: Format) -> float:
    """What the most particular range that fits says, 0 to 1; 0 where none fits."""
    name, versions, group = _RANGES[form]
    best, found = -1, 0.0
    for kind, version, quality in ranges:
        if kind == name and version in versions:
            rank = 3
        elif kind == name and not version:
            rank = 2
        elif kind == group:
            rank = 1
        elif kind == "*/*":
            rank = 0
        else:
            continue
        if rank > best or (rank == best and quality > found):
            best, found = rank, quality
    return found


def _parsed(one: str) -> tuple[str, str, float]:
    """(type, version, quality) of one member of the list; quality is 0 where it is none."""
    kind, *parameters = (part.strip() for part in one.lower().split(";"))
    version, quality = "", 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "version":
            version = value.strip('"')
        elif name == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return kind, version, quality if 0.0 <= quality <= 1.0 else 0.0
