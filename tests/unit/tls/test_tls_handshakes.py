"""Handshakes in memory between a `ClientTls` and a `ServerTls`: who is let in, and what is said of the others."""

import logging
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from support.certificates import Authority, Pair

from sidecar.config.doors import ClientTlsSettings, ServerTlsSettings
from sidecar.errors import Reason
from sidecar.model import Endpoint, Outcome
from sidecar.tls.client import ClientTls
from sidecar.tls.failures import MOST, PAUSE, FailureLog
from sidecar.tls.names import expected_name
from sidecar.tls.server import ServerTls
from sidecar.tls.why import TLS_OUTCOMES, why

SPIFFE = "spiffe://example.org/ns/shop/sa/api"
ENDPOINT = Endpoint("api.example", 8443)


class Sides:
    """What an endpoint shows and what a sidecar wants; the clock stands at `now`."""

    def __init__(self, directory: Path) -> None:
        self.now = 0.0
        self.directory = directory
        self.authority = Authority(directory)

    def client(self, protocol: str = "http", ca: str | None = None, **settings: object) -> ClientTls:
        ca = self.authority.ca if ca is None else ca
        found = ClientTlsSettings(ca=ca, **settings)  # type: ignore[arg-type] # a test's own
        made = ClientTls("api", found, protocol, lambda: self.now)
        made.take(made.load())
        return made

    def server(self, pair: Pair, protocol: str = "http", **settings: object) -> ServerTls:
        found = ServerTlsSettings(cert=pair.cert, key=pair.key, **settings)  # type: ignore[arg-type]
        made = ServerTls("api", found, protocol, lambda: self.now)
        made.take(made.load())
        return made


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides(tmp_path)


def shake(
    client: ClientTls, server: ServerTls, endpoint: Endpoint = ENDPOINT
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both sides, when they are done and have accepted each other; raises what the first of them does."""
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap(one, other, endpoint), server.wrap(other, one)]
    for _ in range(4):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    client.accept(ends[0], endpoint)
    server.accept(ends[1])
    return ends[0], ends[1]


def refused(
    client: ClientTls, server: ServerTls, caplog: pytest.LogCaptureFixture, endpoint: Endpoint = ENDPOINT
) -> tuple[Outcome, str]:
    """What the client's side makes of it."""
    with pytest.raises(ssl.SSLError) as caught:
        shake(client, server, endpoint)
    caplog.clear()
    outcome = client.failed(endpoint, caught.value)
    (record,) = caplog.records
    assert record.name == "sidecar.tls"
    assert record.levelno == logging.WARNING
    return outcome, record.getMessage()


def test_a_name_that_fits(sides: Sides) -> None:
    near, far = shake(sides.client(), sides.server(sides.authority.issue("api.example")))
    assert near.version() == "TLSv1.3"
    assert (near.selected_alpn_protocol(), far.selected_alpn_protocol()) == ("http/1.1", "http/1.1")
    assert near.server_hostname == "api.example"


def test_nothing_is_offered_for_what_is_no_http(sides: Sides) -> None:
    server = sides.server(sides.authority.issue("api.example"))
    assert shake(sides.client("redis"), server)[0].selected_alpn_protocol() is None


def test_a_server_name_of_its_own(sides: Sides) -> None:
    server = sides.server(sides.authority.issue("web.example"))
    shake(sides.client(server_name="web.example"), server, Endpoint("10.0.0.1", 1))


@pytest.mark.parametrize("host", ["10.0.0.1", "::1"])
def test_an_address_is_of_the_certificate(sides: Sides, host: str) -> None:
    near, _ = shake(sides.client(), sides.server(sides.authority.issue(host)), Endpoint(host, 1))
    assert near.server_hostname == host


@pytest.mark.parametrize(
    ("server_name", "host", "name"),
    [
        ("", "api.example.", "api.example"),
        ("", "fe80::1%eth0", "fe80::1"),
        ("web.example", "10.0.0.1", "web.example"),
        ("", "10.0.0.1", "10.0.0.1"),
        ("", "unix:/run/api.sock", "localhost"),
    ],
)
def test_what_is_asked_for(server_name: str, host: str, name: str) -> None:
    assert expected_name(server_name, host) == name


def test_another_host(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    server = sides.server(sides.authority.issue("a.example", "b.example", "c.example", "10.9.8.7"))
    outcome, line = refused(sides.client(), server, caplog)
    assert outcome is Outcome.TLS_WRONG_HOST
    assert line.startswith(
        "api: api.example:8443: tls_wrong_host: its certificate is not of api.example; "
        "it is of a.example, b.example, c.example and 1 more, until "
    )
    assert line.endswith("; set tls.server_name to a name that it has, or have one issued for this one")


def test_another_address(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    server = sides.server(sides.authority.issue("api.example"))
    assert refused(sides.client(), server, caplog, Endpoint("10.0.0.1", 1))[0] is Outcome.TLS_WRONG_HOST


def test_expired_and_not_valid_yet(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    old = sides.server(sides.authority.issue("api.example", since=-9.0, days=-2.0))
    outcome, line = refused(sides.client(), old, caplog)
    assert outcome is Outcome.TLS_EXPIRED
    assert "tls_expired: its certificate has expired (" in line
    young = sides.server(sides.authority.issue("api.example", since=2.0))
    outcome, line = refused(sides.client(), young, caplog)
    assert outcome is Outcome.TLS_EXPIRED
    assert "its certificate is not valid yet (" in line
    assert line.endswith("; have it renewed, or look at both clocks")


def test_an_unknown_authority(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    other = Authority(sides.directory, "other")
    outcome, line = refused(sides.client(), sides.server(other.issue("api.example")), caplog)
    assert outcome is Outcome.TLS_UNKNOWN_CA
    assert "nobody who is trusted has signed its certificate" in line
    assert "issuer authority other)" in line
    assert line.endswith("; set tls.ca to a file with its authority")


def test_an_authority_of_the_same_name_with_another_key(
    sides: Sides, caplog: pytest.LogCaptureFixture
) -> None:
    (sides.directory / "twin").mkdir()
    twin = Authority(sides.directory / "twin")
    outcome, _ = refused(sides.client(), sides.server(twin.issue("api.example")), caplog)
    assert outcome is Outcome.TLS_UNKNOWN_CA


def test_nobody_is_verified_where_that_is_asked_for(sides: Sides) -> None:
    other = Authority(sides.directory, "other")
    shake(sides.client(ca="", verify=False), sides.server(other.issue("elsewhere.example", days=-0.5)))


def test_versions(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    server = sides.server(sides.authority.issue("api.example"))
    server.context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shake(sides.client(), server)[0].version() == "TLSv1.2"
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = sides.client(min_version="1.3")
    near, far = client.wrap(one, other, ENDPOINT), server.wrap(other, one)
    with pytest.raises(ssl.SSLWantReadError):
        near.do_handshake()
    with pytest.raises(ssl.SSLError):
        far.do_handshake()
    with pytest.raises(ssl.SSLError) as caught:
        near.do_handshake()
    assert client.failed(ENDPOINT, caught.value) is Outcome.TLS_FAILED
    assert (
        "it speaks no version of TLS that is allowed; update it, or lower tls.min_version if" in caplog.text
    )


def test_an_endpoint_without_tls(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    client = sides.client()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap(incoming, outgoing, ENDPOINT)
    incoming.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ssl.SSLError) as caught:
        near.do_handshake()
    assert client.failed(ENDPOINT, caught.value) is Outcome.TLS_FAILED
    assert "it speaks no TLS; name the port that does, or a scheme without TLS" in caplog.text


# Identity


@pytest.mark.parametrize(
    ("names", "identity"),
    [
        ((SPIFFE,), (SPIFFE,)),
        ((SPIFFE, "elsewhere.example"), ("spiffe://example.org/other", SPIFFE)),
        (("Api.Shop.example",), ("api.shop.example",)),
        (("*.shop.example",), ("api.shop.example",)),
    ],
)
def test_an_identity_stands_for_the_name(
    sides: Sides, names: tuple[str, ...], identity: tuple[str, ...]
) -> None:
    near, _ = shake(sides.client(identity=identity), sides.server(sides.authority.issue(*names)))
    assert near.server_hostname == "api.example"  # is asked for all the same


@pytest.mark.parametrize(
    ("names", "identity", "said"),
    [
        (
            ("api.example",),
            (SPIFFE,),
            "its certificate is none of tls.identity; it is of api.example, until ",
        ),
        ((SPIFFE + "x",), (SPIFFE,), "its certificate is none of tls.identity; it is of " + SPIFFE + "x"),
        ((SPIFFE, SPIFFE + "x"), (SPIFFE,), "its certificate has 2 URIs, and so is no SPIFFE identity; "),
        (("*.example",), ("api.shop.example",), "its certificate is none of tls.identity; "),
        (("*.shop.example",), ("shop.example",), "its certificate is none of tls.identity; "),
    ],
)
def test_another_identity(
    sides: Sides,
    caplog: pytest.LogCaptureFixture,
    names: tuple[str, ...],
    identity: tuple[str, ...],
    said: str,
) -> None:
    server = sides.server(sides.authority.issue(*names))
    outcome, line = refused(sides.client(identity=identity), server, caplog)
    assert outcome is Outcome.TLS_WRONG_HOST
    assert f"tls_wrong_host: {said}" in line


def test_an_identity_of_an_unknown_authority_is_none(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    server = sides.server(Authority(sides.directory, "other").issue(SPIFFE))
    assert refused(sides.client(identity=(SPIFFE,)), server, caplog)[0] is Outcome.TLS_UNKNOWN_CA


# Clients of a listener


def test_a_client_of_the_right_authority_and_identity(sides: Sides) -> None:
    pair, mine = sides.authority.issue("api.example"), sides.authority.issue(SPIFFE, file="mine")
    server = sides.server(pair, client_ca=sides.authority.ca, identity=(SPIFFE,))
    shake(sides.client(cert=mine.cert, key=mine.key), server)


def _rejected(client: ClientTls, server: ServerTls, caplog: pytest.LogCaptureFixture) -> str:
    with pytest.raises(ssl.SSLError) as caught:
        shake(client, server)
    server.failed(caught.value)
    (record,) = caplog.records
    return record.getMessage()


def test_a_client_without_a_certificate(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    server = sides.server(sides.authority.issue("api.example"), client_ca=sides.authority.ca)
    assert _rejected(sides.client(), server, caplog) == (
        "api: a client: tls_failed: it has shown no certificate; give it one that tls.client_ca has signed"
    )
    assert server.stats.tls_failures == [[0, 0, 0, 0], [0, 0, 0, 1]]


def test_a_client_of_another_authority(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    server = sides.server(sides.authority.issue("api.example"), client_ca=sides.authority.ca)
    other = Authority(sides.directory, "other").issue("me.example", file="mine")
    line = _rejected(sides.client(cert=other.cert, key=other.key), server, caplog)
    assert line.startswith("api: a client: tls_unknown_ca: nobody who is trusted has signed its certificate")
    assert "it is of me.example" in line
    assert line.endswith("; set tls.client_ca to a file with its authority")


def test_a_client_of_another_identity(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    pair, mine = sides.authority.issue("api.example"), sides.authority.issue("me.example", file="mine")
    server = sides.server(pair, client_ca=sides.authority.ca, identity=(SPIFFE,))
    line = _rejected(sides.client(cert=mine.cert, key=mine.key), server, caplog)
    assert line.startswith("api: a client: tls_wrong_host: its certificate is none of tls.identity")


def test_a_client_that_speaks_plain_http(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    server = sides.server(sides.authority.issue("api.example"))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    far = server.wrap(incoming, outgoing)
    incoming.write(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ssl.SSLError) as caught:
        far.do_handshake()
    server.failed(caught.value)
    assert "a client: tls_failed: it speaks no TLS; speak TLS to this port" in caplog.text


# What is made of other ends


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ConnectionResetError(104, "reset"),
            "it closed the connection during the handshake; look into its log",
        ),
        (ssl.SSLEOFError(8, "EOF"), "it closed the connection during the handshake; look into its log"),
        (TimeoutError("late"), "it did not finish the handshake in time; look into its log"),
    ],
)
def test_an_end_in_the_midst(error: Exception, said: str) -> None:
    found = why(error, "api.example")
    assert (found.outcome, str(found)) == (Outcome.TLS_FAILED, said)


def test_a_client_that_is_too_slow_has_not_closed_anything() -> None:
    found = why(TimeoutError("late"), "", client=True)
    said = (
        "it did not finish the handshake in time; look at the network between, or raise sidecar.head_timeout"
    )
    assert (found.outcome, str(found)) == (Outcome.TLS_FAILED, said)


def test_a_name_that_cannot_be_asked_for(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    odd = Endpoint("a..example", 443)
    with pytest.raises(UnicodeError) as caught:
        sides.client().wrap(ssl.MemoryBIO(), ssl.MemoryBIO(), odd)
    assert sides.client().failed(odd, caught.value) is Outcome.TLS_FAILED
    assert "no server can be asked for by the name a..example; set tls.server_name to one" in caplog.text


def _alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (
            "TLSV13_ALERT_CERTIFICATE_REQUIRED",
            "it refused, as servers do that want a certificate; set tls.cert",
        ),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "it refused, as servers do that want a certificate; set tls.cert"),
        ("TLSV1_ALERT_UNKNOWN_CA", "it refuses the certificate that it was shown (unknown ca); renew it, or"),
        (
            "SSLV3_ALERT_CERTIFICATE_EXPIRED",
            "it refuses the certificate that it was shown (certificate expired)",
        ),
        ("TLSV1_UNRECOGNIZED_NAME", "it knows nothing of the name that was asked for; set tls.server_name"),
        ("NO_SHARED_CIPHER", "the handshake failed: no shared cipher; compare what both sides allow"),
    ],
)
def test_alerts(reason: str, said: str) -> None:
    found = why(_alert(reason), "api.example")
    assert found.outcome is Outcome.TLS_FAILED
    assert str(found).startswith(said)


def test_every_outcome_of_tls_is_a_reason_too() -> None:
    assert [outcome.label for outcome in TLS_OUTCOMES] == [
        reason.label for reason in Reason if reason.label.startswith("tls_")
    ]


# How often it is told


def test_the_same_failure_is_told_once_a_minute(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    client, error = sides.client(), ConnectionResetError()
    for _ in range(5):
        client.failed(ENDPOINT, error)
    client.failed(Endpoint("b.example", 1), error)
    assert len(caplog.records) == 2
    sides.now = PAUSE
    client.failed(ENDPOINT, error)
    assert len(caplog.records) == 3
    assert caplog.records[-1].getMessage().endswith(" (4 more like it since the last line)")
    assert client.stats.tls_failures == [[0, 0, 0, 7], [0, 0, 0, 0]]


def test_only_so_many_kinds_are_remembered() -> None:
    log = FailureLog(lambda: 0.0)
    for kind in range(MOST + 1):
        assert log.due(kind) == 0
    assert log.due(MOST) is None
    assert log.due(0) == 0  # forgotten, as the first of all
