"""Header rules, bearer tokens and rate limits as a file says them: layers, findings, and what is noted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.config import Settings, load_settings
from sidecar.config.doors import HeaderEdits, HeaderSettings, RateSettings
from sidecar.config.field_rules import MAX_VALUE
from sidecar.config.front import token_notes
from sidecar.errors import ConfigurationError

Load = Callable[[str], Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str) -> Settings:
        file = tmp_path / "file.yml"
        file.write_text(text)
        return load_settings(file, environ={}, container=False)

    return load


@pytest.fixture
def headers(load: Load) -> Callable[[str, str], HeaderSettings]:
    """Of the one upstream `web`; the texts are the keys of `defaults`, and of the upstream."""

    def headers(defaults: str, own: str) -> HeaderSettings:
        text = f"defaults: {{{defaults}}}\nservices:\n  web: {{host: web.example, port: 80, {own}}}\n"
        return load(text).upstream("web").policy.headers

    return headers


@pytest.fixture
def findings(load: Load) -> Callable[[str], list[str]]:
    """What is wrong with keys of the one upstream `web`, on line 2, or with `defaults` on line 1."""

    def findings(own: str, defaults: str = "") -> list[str]:
        text = f"defaults: {{{defaults}}}\nservices: {{web: {{host: web.example, port: 80, {own}}}}}\n"
        with pytest.raises(ConfigurationError) as raised:
            load(text)
        return [line.partition("file.yml:")[2] for line in raised.value.findings]

    return findings


Headers = Callable[[str, str], HeaderSettings]
Find = Callable[..., list[str]]


def test_nothing_is_said(headers: Headers) -> None:
    assert headers("", "") == HeaderSettings()


def test_rules_of_both_directions(headers: Headers) -> None:
    found = headers(
        "",
        "headers: {request: {set: {X-A: a}, add: {X-B: [b, c], X-C: ''}, remove: [X-D, X-E]},"
        " response: {remove: Server}}",
    )
    assert found.request == HeaderEdits(
        (("X-A", "a"),), (("X-B", "b"), ("X-B", "c"), ("X-C", "")), ("X-D", "X-E")
    )
    assert found.response == HeaderEdits(remove=("Server",))


def test_what_an_upstream_says_of_a_header_replaces_what_defaults_say_of_it(headers: Headers) -> None:
    found = headers(
        "headers: {request: {set: {X-A: all, X-B: all}, add: {X-C: [all, too]}, remove: [X-D, X-E]}}",
        "headers: {request: {set: {x-d: own}, add: {x-a: own}, remove: [x-c]}}",
    )
    assert found.request == HeaderEdits((("X-B", "all"), ("x-d", "own")), (("x-a", "own"),), ("X-E", "x-c"))


def test_defaults_are_for_what_is_http(load: Load) -> None:
    settings = load(
        "defaults: {headers: {request: {set: {X-A: a}}}}\n"
        "services: {db: {host: a.example, port: 1, scheme: tcp}, web: {host: a.example, port: 2}}\n"
    )
    assert settings.upstream("db").policy.headers == HeaderSettings()
    assert settings.upstream("web").policy.headers.request.set == (("X-A", "a"),)


@pytest.mark.parametrize(
    ("rules", "what"),
    [
        ("set: {Host: a}", "web.headers.request.set.Host: `Host` has a key of its own; use host_header"),
        ("add: {te: a}", "is the proxy's to write, as it is of one connection; remove it"),
        ("remove: [Content_Length]", "is the proxy's to write, as it is of one connection; remove it"),
        ("remove: [X-Sidecar-Error]", "use a name that does not begin with x-sidecar-"),
        ("set: {'a b': a}", "`a b` is no name of a header; write for example X-Request-Source"),
        ("set: {'é': a}", "is no name of a header"),
        (
            "set: {Authorization: Bearer-x}",
            "is a secret, which does not belong into a file; write bearer_token",
        ),
        ("add: {proxy-authorization: Bearer-x}", "is a secret, which does not belong into a file"),
        ('set: {X-A: "a\\nb"}', "X-A: is no value of a header; use visible ASCII characters"),
        ("set: {X-A: ' a'}", "with spaces between them only"),
        ("set: {X-A: 'é'}", "is no value of a header"),
        ("set: {X-A: 1}", "must be text, not `1`; put it in quotes if it is a name"),
        (f"set: {{X-A: {'x' * (MAX_VALUE + 1)}}}", "has 4097 characters; 4096 is the most"),
        ("set: {X-A: [a]}", "is a list; give one value, or put them under `add`"),
        ("add: {X-A: [a, [b]]}", "web.headers.request.add.X-A[1]: must be text, not a list"),
        ("set: {X-A: a, x-a: b}", "is the same header as `X-A` before it; write it once"),
        ("set: [X-A]", "must be a mapping of keys to values, not a list"),
        (f"add: {{X-A: [{', '.join('a' * 33)}]}}", "has 33 values; 32 is the most"),
        ("set: {X-A: a}, remove: [x-a]", "remove[0]: x-a is set as well; keep one of the two"),
    ],
)
def test_what_no_rule_may_say(findings: Find, rules: str, what: str) -> None:
    (line,) = findings(f"headers: {{request: {{{rules}}}}}")
    assert line.startswith("2: services.web.headers.request.")
    assert what in line


def test_they_mean_nothing_for_sessions(findings: Find) -> None:
    found = findings("scheme: redis, headers: {request: {set: {X-A: a}}}, bearer_token_env: TOKEN")
    assert [line.partition(": means nothing for redis")[0] for line in found] == [
        "2: services.web.headers",
        "2: services.web.bearer_token_env",
    ]


# Tokens


def test_a_token_is_in_a_file_beside_the_configuration_or_in_a_variable(
    headers: Headers, tmp_path: Path
) -> None:
    assert headers("", "bearer_token_file: web.token").bearer_file == str(tmp_path / "web.token")
    assert headers("", "bearer_token_file: /run/web.token").bearer_file == "/run/web.token"
    assert headers("", "bearer_token_env: WEB_TOKEN").bearer_env == "WEB_TOKEN"


def test_a_token_is_one_upstreams_and_in_one_place(findings: Find) -> None:
    assert findings("", "bearer_token_env: A, bearer_token_file: b") == [
        f"1: defaults.{name}: would go to every upstream; write it at those that may see the token"
        for name in ("bearer_token_env", "bearer_token_file")
    ]
    assert findings("bearer_token_env: A, bearer_token_file: b") == [
        "2: services.web.bearer_token_file: says where the token is as well as bearer_token_env; keep one of the two"
    ]
    assert findings("bearer_token_env: A, headers: {request: {remove: [Authorization]}}") == [
        "2: services.web.headers.request.remove[0]: Authorization is where the bearer token goes; remove one of the two"
    ]
    (line,) = findings("bearer_token: do-not-tell")
    assert "write bearer_token_env: NAME of a variable, or bearer_token_file: PATH" in line
    assert "do-not-tell" not in line


@pytest.mark.parametrize(
    ("upstream", "noted"),
    [
        ("services: {web: {host: web.example, port: 80, bearer_token_env: A}}", True),
        ("services: {web: {host: localhost, port: 80, bearer_token_env: A}}", False),
        ("services: {web: {host: 127.0.0.9, port: 80, bearer_token_env: A}}", False),
        ("services: {web: {host: web.example, port: 80}}", False),
        ("load_balancers: {web: {hosts: ['[::1]:80', '10.0.0.1:80'], bearer_token_file: a}}", True),
        (
            "external_registry: {type: dns}\nservices: {web: {host: localhost, port: 80, bearer_token_env: A}}",
            True,
        ),
    ],
)
def test_a_token_that_everybody_can_read_is_noted(load: Load, upstream: str, noted: bool) -> None:
    notes = [note for note in load(upstream).notes if "bearer token" in note]
    assert len(notes) == noted
    assert all(note.startswith("web: its bearer token goes over plain http") for note in notes)


def test_over_tls_nobody_can(load: Load) -> None:
    upstream = load("services: {web: {host: web.example, port: 80, bearer_token_env: A}}").upstream("web")
    assert token_notes([upstream])
    assert not token_notes([replace(upstream, scheme="https")])


# Rate limits


@pytest.mark.parametrize(
    ("defaults", "own", "rate"),
    [
        ("", "", RateSettings()),
        ("", "rate_limit: {requests: 100}", RateSettings(100, 1.0, 100)),
        ("", "rate_limit: {requests: 100, per: 1m, burst: 7}", RateSettings(100, 60.0, 7)),
        ("rate_limit: {requests: 9, per: 2, burst: 3}", "", RateSettings(9, 2.0, 3)),
        ("rate_limit: {requests: 9, per: 2, burst: 3}", "rate_limit: {requests: 5}", RateSettings(5, 1.0, 5)),
        ("rate_limit: {requests: 9, per: 2, burst: 3}", "rate_limit: {requests: 0}", RateSettings()),
        ("rate_limit: {requests: 9}", "scheme: tcp", RateSettings(9, 1.0, 9)),
    ],
)
def test_a_rate_limit_is_one_layers_as_a_whole(
    load: Load, defaults: str, own: str, rate: RateSettings
) -> None:
    text = f"defaults: {{{defaults}}}\nservices: {{web: {{host: web.example, port: 80, {own}}}}}\n"
    assert load(text).upstream("web").policy.rate_limit == rate


def test_a_rate_limit_says_how_many(findings: Find) -> None:
    assert findings("rate_limit: {per: 1}") == [
        "2: services.web.rate_limit: does not say how many; add `requests: N`, or `requests: 0` for no limit"
    ]
    assert findings("rate_limit: {requests: many, per: 1}") == [
        "2: services.web.rate_limit.requests: must be a whole number, not `many`; give a number"
    ]
