"""Both formats, held against prometheus-client: of what its parsers read its writers make the same bytes again."""

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic
from prometheus_client.registry import Collector
from support.metrics import everything, many

from sidecar.observe.exposition import CLASSIC, OPENMETRICS, PART, Summary, counter, gauge, written

DETAILS = ("low", "normal", "endpoint")


class Known(Collector):
    """Families for the library's writers."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = list(families)

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield from self.families


@pytest.mark.parametrize("detail", DETAILS)
def test_the_classic_format_is_what_the_library_writes(detail: str) -> None:
    text = everything(detail).render(CLASSIC)
    assert generate_latest(Known(parse_classic(text.decode()))) == text


@pytest.mark.parametrize("detail", DETAILS)
def test_openmetrics_is_what_the_library_writes(detail: str) -> None:
    text = everything(detail).render(OPENMETRICS)
    assert generate_openmetrics(Known(parse_openmetrics(text.decode()))) == text
    assert text.endswith(b"\n# EOF\n")


@pytest.mark.parametrize("detail", DETAILS)
def test_both_formats_tell_the_same(detail: str) -> None:
    metrics = everything(detail)
    classic = parse_classic(metrics.render(CLASSIC).decode())
    openmetrics = parse_openmetrics(metrics.render(OPENMETRICS).decode())
    found = [
        [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]
        for families in (classic, openmetrics)
    ]
    assert found[0] == found[1]
    assert len(found[0]) > 100


def test_counters_are_named_without_total_in_openmetrics_alone() -> None:
    family = counter("refused_total", "Refused.", (), [((), 3)])
    assert b"".join(written([family], OPENMETRICS)) == (
        b"# HELP sidecar_refused Refused.\n# TYPE sidecar_refused counter\nsidecar_refused_total 3.0\n# EOF\n"
    )
    family = counter("refused_total", "Refused.", (), [((), 3)])
    assert b"".join(written([family], CLASSIC)) == (
        b"# HELP sidecar_refused_total Refused.\n# TYPE sidecar_refused_total counter\nsidecar_refused_total 3.0\n"
    )


def test_no_text_of_a_family_needs_to_be_escaped() -> None:
    text = everything("endpoint").render().decode()
    helps = [line for line in text.splitlines() if line.startswith("# HELP")]
    assert len(helps) > 50
    assert not [line for line in helps if "\\" in line or '"' in line]


@pytest.mark.parametrize("form", [CLASSIC, OPENMETRICS], ids=["classic", "openmetrics"])
def test_a_family_of_several_parts_is_one(form: object) -> None:
    assert form in (CLASSIC, OPENMETRICS)
    chosen = OPENMETRICS if form is OPENMETRICS else CLASSIC
    metrics = many(3, 200, "endpoint")
    parts = list(metrics.parts(chosen))
    assert len(parts) > 10
    assert all(part.endswith(b"\n") for part in parts)
    text = b"".join(parts).decode()
    parse = parse_openmetrics if form is OPENMETRICS else parse_classic
    families = list(parse(text))
    assert len({family.name for family in families}) == len(families) == text.count("# TYPE ")


def test_parts_are_counted_in_lines_also_of_families_with_several_for_a_series() -> None:
    family = Summary("x_seconds", "X.", ("n",), (((str(n),), (n, 0.5)) for n in range(PART)))
    parts = list(written([family], CLASSIC))
    assert [part.count(b"sidecar_x_seconds_sum{") for part in parts] == [PART // 2, PART // 2, 0]


@given(
    st.text(st.characters(codec="utf-8")),
    st.integers(0, 2**60) | st.floats(allow_nan=False) | st.booleans(),
)
def test_values_and_labels_are_written_as_the_library_does(label: str, value: float) -> None:
    ours = b"".join(written([gauge("x", "X.", ("b", "a"), [((label, "1"), value)])], CLASSIC))
    theirs = GaugeMetricFamily("sidecar_x", "X.", labels=("b", "a"))
    theirs.add_metric((label, "1"), value)
    assert ours == generate_latest(Known([theirs]))
