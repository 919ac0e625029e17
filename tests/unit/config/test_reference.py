"""The configuration reference: whole, true, and the one that is committed."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.config import load_settings
from sidecar.config.descriptions import SECTIONS
from sidecar.config.record import Record
from sidecar.config.reference import keys_of, missing, reference, sections
from sidecar.config.rules import Choice, Whole
from sidecar.config.schema import Defaults, LoadBalancer, Policy
from sidecar.config.takes import plain_size, takes_value
from sidecar.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[3]


def row(section: str, key: str) -> list[str]:
    """The cells of a key: what it takes, its default, its sentence."""
    (text,) = re.findall(
        rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", reference(), re.MULTILINE | re.DOTALL
    )
    (line,) = [line for line in text.splitlines() if line.startswith(f"| `{key}` |")]
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_every_key_has_a_sentence_and_every_sentence_a_key() -> None:
    assert missing() == [], (
        "these keys are in the schema or in config/descriptions, and not in both; "
        "describe each in a sentence, or take out what is about nothing"
    )


def test_the_committed_reference_is_what_is_printed() -> None:
    printed = subprocess.run(
        [sys.executable, "-P", "-m", "sidecar.config.reference"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env={"PYTHONPATH": str(Path(sys.modules["sidecar"].__file__ or "").parents[1])},
    ).stdout
    assert printed == reference()
    assert (ROOT / "config/README.md").read_text() == printed, (
        "make it anew: python -m sidecar.config.reference > config/README.md"
    )


@pytest.mark.parametrize("name", [name for name, about in SECTIONS.items() if about.example])
def test_every_example_is_a_file_that_is_fine(name: str, tmp_path: Path) -> None:
    file = tmp_path / "sidecar.yml"
    file.write_text(SECTIONS[name].example)
    load_settings(file, environ={}, container=False)


def test_every_link_leads_somewhere() -> None:
    text = reference()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert len(anchors) == len(headings), "no two sections of one name"
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) == anchors


def test_each_section_is_there_once_and_has_its_own_keys() -> None:
    assert reference().count("\n## ") == len(sections()) == len(SECTIONS)
    assert "timeout" in keys_of(Policy)
    assert list(keys_of(Defaults)) == ["host"]
    assert list(keys_of(LoadBalancer)) == ["host", "hosts", "scheme", "strategy", "hash_on"]
    assert not any("password" in keys_of(kind) for kind in sections().values()), (
        "what no file may say is not told"
    )


@pytest.mark.parametrize(
    ("section", "key", "takes", "default"),
    [
        ("Every upstream", "timeout", "a time above 0, up to a day", "`30`"),
        ("Every upstream", "slow_start", "a time from 0 to a day", "`0` (off)"),
        (
            "Every upstream",
            "retry_on",
            "one, or a list of up to 16: `connect`, `reset`, `timeout`, or a status from 400 to 599",
            "`[connect, reset]`",
        ),
        ("Every upstream", "limits", "a mapping, see [limits](#limits)", ""),
        ("limits", "request_head", "a size from 1KiB to 1MiB", "`64KiB`"),
        ("retry_backoff", "base", "a time from 0 to a day", "`25ms`"),
        ("retry_backoff", "max", "a time above 0, up to a day", "`250ms`"),
        ("outlier", "max_ejected", "a share from 0% to 100%", "`50%`"),
        ("circuit_breaker", "failure_rate", "a share from 0% to below 100%", "`50%`"),
        (
            "health_check",
            "expect_status",
            "one, or a list of up to 16: a status, a class such as `2xx`, or a range such as `200-399`",
            "`[200-299]`",
        ),
        ("sidecar", "admin", "`host:port`, port 0 for any free one", "`127.0.0.1:9901`"),
        ("sidecar", "watch", "`true` or `false`", "`true`"),
        ("last_good", "max_age", "a time above 0, up to a day", "`24h`"),
        ("sidecar", "workers", "a whole number from 1 to 64", "`1`"),
        (
            "sidecar",
            "ports",
            "port numbers, each with the name of an upstream, or a mapping, see [ports](#ports)",
            "each on its own",
        ),
        ("register", "host", "a host name or an IP address", "found"),
        ("load_balancers", "hosts", "a list of up to 1000 hosts, see [hosts](#hosts)", ""),
        ("request and response", "add", "up to 32 names of headers, each with a value or a list of them", ""),
    ],
)
def test_what_a_key_takes_and_is_by_default(section: str, key: str, takes: str, default: str) -> None:
    assert row(section, key)[:2] == [takes, default]


@pytest.mark.parametrize(
    ("section", "key", "said", "text", "fine", "refused"),
    [
        ("Every upstream", "idle_timeout", "Not 0 for http.", "{idle_timeout: @}", "1ms", "0"),
        ("Every upstream", "per_try_timeout", "Less than `timeout`.", "{per_try_timeout: @}", "29", "30"),
        ("Every upstream", "hedge_after", "less than `timeout`.", "{hedge_after: @}", "29", "30"),
        ("health_check", "interval", "at least `100ms`.", "{health_check: {interval: @}}", "100ms", "99ms"),
        ("register", "ttl", "at least `3s`.", "", "3s", "2.9s"),
    ],
)
def test_bounds_that_other_keys_set_are_told(
    section: str, key: str, said: str, text: str, fine: str, refused: str, tmp_path: Path
) -> None:
    assert row(section, key)[2].endswith(said)
    file = tmp_path / "sidecar.yml"
    announced = "external_registry: {type: consul, host: 127.0.0.1}\nregister: {name: a, port: 1, ttl: @}\n"
    whole = f"services: {{api: {{host: api.example, port: 80}}}}\ndefaults: {text}\n" if text else announced
    file.write_text(whole.replace("@", fine))
    load_settings(file, environ={}, container=False)
    file.write_text(whole.replace("@", refused))
    with pytest.raises(ConfigurationError, match=rf"{key}: "):
        load_settings(file, environ={}, container=False)


class _New(Record):
    """One of a kind. Of which nobody has heard."""


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (_New(), "one of a kind"),
        (Whole(1, 3), "a whole number from 1 to 3"),
        (Choice(("a",)), "`a`"),
        (Choice(("a", "b", "c"), {"d": "x", "e": "y"}), "`a`, `b` or `c` (not yet: `d` or `e`)"),
    ],
)
def test_kinds_of_values(rule: Any, told: str) -> None:
    assert takes_value(rule) == told


def test_sizes() -> None:
    assert [plain_size(count) for count in (0, 1, 1024, 1536, 3 << 20, 1 << 30)] == [
        "0",
        "1",
        "1KiB",
        "1536",
        "3MiB",
        "1GiB",
    ]
