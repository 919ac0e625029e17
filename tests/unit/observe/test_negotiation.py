"""Who asks for what gets which format: RFC 9110 section 12.5.1, and what Prometheus really sends."""

import pytest

from sidecar.observe.exposition import CLASSIC, OPENMETRICS
from sidecar.observe.negotiation import chosen_format

# As 2.42 sends it, and 3, and one that would rather have protobuf.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROTOBUF_FIRST = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    "accept",
    [
        PROMETHEUS_2,
        PROMETHEUS_3,
        PROTOBUF_FIRST,
        "application/openmetrics-text",
        "Application/OpenMetrics-Text; Version=1.0.0; Charset=utf-8",
        'application/openmetrics-text; version="1.0.0"',
        "text/plain;q=0.4, application/openmetrics-text;version=1.0.0;q=0.5",
        "text/*;q=0.4, application/openmetrics-text;q=0.5",
        "text/plain;q=0, application/openmetrics-text;q=0.1",
        "*/*;q=0.9, text/plain;q=0.2, application/openmetrics-text;q=0.3",
    ],
)
def test_openmetrics_is_for_who_prefers_it(accept: str) -> None:
    assert chosen_format(accept) is OPENMETRICS


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",  # a browser
        "text/plain;version=0.0.4",
        "text/plain;version=0.0.4;q=1,*/*;q=0.1",  # Prometheus with `scrape_protocols: [PrometheusText0.0.4]`
        "application/json",
        "application/*",
        "application/openmetrics-text;version=0.0.1",  # none that there is
        "application/openmetrics-text;version=2.0.0, text/plain;q=0.1",
        "application/openmetrics-text;q=0.5, text/plain;q=0.5",
        "application/openmetrics-text;q=0.5, */*",
        "application/openmetrics-text;q=0",
        "application/openmetrics-text;q=high, text/plain;q=0.1",
        "application/openmetrics-text;q=7",
        "application/openmetrics-text;version=1.0.0;q=0.2, application/openmetrics-text;q=0.9, text/plain;q=0.5",
        ";;,,=",
    ],
)
def test_all_others_get_text(accept: str) -> None:
    assert chosen_format(accept) is CLASSIC
