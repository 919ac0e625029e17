"""Families of metrics, and how they are written: the classic text format 0.0.4, or OpenMetrics 1.0.0.

https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md are followed as far as counters,
gauges, histograms and summaries go. prometheus-client's own writer takes four times as long: for each line it sorts the
labels and looks at their names with regular expressions. Tests hold the bytes of this one against its.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.utils import floatToGoString

__all__ = [
    "CLASSIC",
    "OPENMETRICS",
    "PART",
    "Family",
    "Format",
    "Histogram",
    "Summary",
    "counter",
    "gauge",
    "written",
]

PART = 500  # series that are read and written out without a pause: some 1 ms

_go_float: Callable[[float], str] = floatToGoString  # which is not typed

# Label values and value, for each series of a family.
Series = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True, slots=True)
class Format:
    """content_type: as the answer has it. names_end_in_total: the names of counters as families, not only as samples.

    end: what follows the last line.
    """

    content_type: str
    names_end_in_total: bool
    end: str


CLASSIC = Format(CONTENT_TYPE_PLAIN_0_0_4, names_end_in_total=True, end="")
OPENMETRICS = Format(CONTENT_TYPE_LATEST, names_end_in_total=False, end="# EOF\n")


class Family:
    """One metric with all its series, which are read as they are written.

    kind: counter, gauge, histogram or summary. name: with its prefix, and of a counter with `_total`. text: what it is,
    a line without backslashes and quotes. labels: their names; `series` has values in this order. rows: lines of each.
    """

    __slots__ = ("kind", "labels", "name", "rows", "series", "text")

    def __init__(
        self,
        kind: str,
        name: str,
        text: str,
        labels: tuple[str, ...],
        series: Iterable[tuple[tuple[str, ...], Any]],
    ) -> None:
        self.kind = kind
        self.name = f"sidecar_{name}"
        self.text = text
        self.labels = labels
        self.series = series
        self.rows = 1

    def head(self, form: Format) -> str:
        """The lines that come once for all series."""
        name = self.name
        if self.kind == "counter" and not form.names_end_in_total:
            name = name.removesuffix("_total")
        return f"# HELP {name} {self.text}\n# TYPE {name} {self.kind}\n"

    def lines(self, escaped: _Escaped) -> Iterator[str]:
        """What each series is written as, one string of `rows` lines."""
        line = _template(self.name, self.labels)
        for values, value in self.series:
            yield line(*[escaped[one] for one in values], _number(value))


class Histogram(Family):
    """The value of a series is (counts of the buckets, sum). bounds: of the buckets; there is one for what is above."""

    __slots__ = ("bounds",)

    def __init__(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...],
        bounds: tuple[float, ...],
        series: Iterable[tuple[tuple[str, ...], tuple[list[int], float]]],
    ) -> None:
        super().__init__("histogram", name, text, labels, series)
        # OpenMetrics asks for `1.0`; the same in both formats, or the series would be others in another Prometheus.
        self.bounds = (*(_go_float(bound) for bound in bounds), "+Inf")
        self.rows = len(self.bounds) + 2

    def lines(self, escaped: _Escaped) -> Iterator[str]:
        """See `Family.lines`."""
        bucket = _template(f"{self.name}_bucket", (*self.labels, "le"))
        count = _template(f"{self.name}_count", self.labels)
        total = _template(f"{self.name}_sum", self.labels)
        for values, (counts, value) in self.series:
            own = [escaped[one] for one in values]
            found = []
            so_far = 0
            for bound, one in zip(self.bounds, counts, strict=True):
                so_far += one
                found.append(bucket(*own, bound, _number(so_far)))
            yield "".join([*found, count(*own, _number(so_far)), total(*own, _number(value))])


class Summary(Family):
    """The value of a series is (count, sum); there are no quantiles."""

    __slots__ = ()

    def __init__(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...],
        series: Iterable[tuple[tuple[str, ...], tuple[int, float]]],
    ) -> None:
        super().__init__("summary", name, text, labels, series)
        self.rows = 2

    def lines(self, escaped: _Escaped) -> Iterator[str]:
        """See `Family.lines`."""
        count = _template(f"{self.name}_count", self.labels)
        total = _template(f"{self.name}_sum", self.labels)
        for values, (number, value) in self.series:
            own = [escaped[one] for one in values]
            yield count(*own, _number(number)) + total(*own, _number(value))


def counter(name: str, text: str, labels: tuple[str, ...], series: Series) -> Family:
    """The counter `sidecar_NAME`; `name` ends in `_total`."""
    return Family("counter", name, text, labels, series)


def gauge(name: str, text: str, labels: tuple[str, ...], series: Series) -> Family:
    """The gauge `sidecar_NAME`."""
    return Family("gauge", name, text, labels, series)


def written(families: Iterable[Family], form: Format) -> Iterator[bytes]:
    """The exposition in parts of `PART` lines, or a few more where the last series has several."""
    escaped = _Escaped()
    part: list[str] = []
    count = 0
    for family in families:
        part.append(family.head(form))
        for line in family.lines(escaped):
            part.append(line)
            count += family.rows
            if count >= PART:
                yield "".join(part).encode()
                part.clear()
                count = 0
    part.append(form.end)
    yield "".join(part).encode()


class _Escaped(dict[str, str]):
    """Label values as they are written: most of them come many times in one scrape."""

    def __missing__(self, value: str) -> str:
        found = self[value] = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
        return found


def _template(name: str, labels: tuple[str, ...]) -> Callable[..., str]:
    """What makes a line of label values in their order and the value. Labels are written in alphabetical order."""
    if not labels:
        return f"{name} {{}}\n".format
    pairs = ",".join(
        f'{label}="{{{place}}}"' for label, place in sorted(zip(labels, range(len(labels)), strict=True))
    )
    return f"{name}{{{{{pairs}}}}} {{{len(labels)}}}\n".format


def _number(value: float) -> str:
    """As Go writes a float, which both formats are read by; what nearly all are is not worth a call."""
    if type(value) is int and -1_000_000 < value < 1_000_000:
        return f"{value}.0"
    return _go_float(value)
