"""What `benchmarks/scrape.py` prints of a scrape."""

import pytest
import scrape


def test_sizes_and_times_of_both_formats(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scrape, "SIZES", (2,))
    monkeypatch.setattr(scrape, "REPEATS", 1)
    assert scrape.in_process("normal")
    _, titles, text, openmetrics = capsys.readouterr().out.splitlines()
    assert titles.split()[:3] == ["upstreams", "format", "series"]
    assert text.split()[:2] == ["2", "text"]
    assert openmetrics.split()[:2] == ["2", "openmetrics"]
    assert text.split()[2] == openmetrics.split()[2], "as many series"
    monkeypatch.setattr(scrape, "MOST_CPU", 0.0)
    assert not scrape.in_process("normal")


def test_the_upstream_that_is_asked_is_among_those_of_the_configuration() -> None:
    text = scrape._configuration(8080, 9090, "low")
    assert "metrics_detail: low" in text
    assert text.count("hosts:") == 50
    assert 'u0: {hosts: ["127.0.0.1:9090"]}' in text
